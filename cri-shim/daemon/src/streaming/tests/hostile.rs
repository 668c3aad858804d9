//! Clients that lie, flood, never read or die at any octet: each costs itself its connection, and nothing
//! of it is left.

use super::client::Client;
use super::{ALL, Said, exec, forward, forwards, spdy, started};
use crate::streaming::spdy::frame::tests::{control, data, syn};
use crate::streaming::spdy::headers::tests::Deflater;
use crate::streaming::status::Form;
use crate::streaming::wire::Left;
use proptest::prelude::*;
use shim_model::limits;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_holds_little_and_not_for_ever() {
    let (mut client, served) = started("yes", ALL).await;
    let begun = Instant::now();
    // It pings, so it is not idle; it is the write that makes no progress.
    let pings = async {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            if !client.try_raw(&control(6, 0, &[0, 0, 0, 1])).await {
                return;
            }
        }
    };
    timeout(2 * limits::STREAM_IDLE, pings).await.expect("it was cut");
    let held = served.programs.written.load(Ordering::SeqCst);
    assert!(held < 512 << 10, "{held} bytes are held");
    assert!(begun.elapsed() <= limits::STREAM_IDLE + Duration::from_mins(2));
    assert!(matches!(served.left().await, Left::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn input_for_a_program_that_reads_nothing_is_bounded() {
    let (mut client, served) = started("sleep", ALL).await;
    let frame = data(client.streams["stdin"], 0, &[0; 10_000]);
    let mut sent = 0;
    let stopped = timeout(Duration::from_secs(5), async {
        loop {
            client.raw(&frame).await;
            sent += 10_000;
        }
    });
    assert!(stopped.await.is_err());
    assert!(sent < (1 << 20) + 4 * super::PIPE, "{sent}");
    let begun = Instant::now();
    drop(client);
    served.left().await;
    assert!(begun.elapsed() <= limits::STREAM_HEARTBEAT);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_that_want_an_answer_is_bounded() {
    let zlib = &mut Deflater::new();
    let wrong = syn(zlib, 2, 0, &[("streamtype", "x")]);
    for frame in [control(6, 0, &[0, 0, 0, 1]), data(99, 0, b"x"), wrong[..].to_vec()] {
        let (mut client, served) = spdy(exec("cat", ALL), true, Form::Json);
        let mut sent = 0;
        let flood = timeout(Duration::from_secs(5), async {
            while client.try_raw(&frame).await {
                sent += frame.len();
            }
        });
        drop(flood.await);
        // What both directions hold, and the answers that wait.
        assert!(sent < 8 * super::PIPE, "{sent}");
        drop(client);
        served.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bomb_ends_its_connection_with_a_word() {
    let bomb = Deflater::new().raw(&vec![0; 8 << 20]);
    let stream = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for frame in [
        control(1, 0, &[&stream[..], &bomb].concat()),
        control(4, 0, &[0xff; 4]),
        vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0x80, 2, 0, 1, 0, 0, 0, 0],
        data(0, 0, b"x"),
    ] {
        let (mut client, served) = spdy(exec("cat", ALL), true, Form::Json);
        client.raw(&frame).await;
        if frame[0] == b'G' {
            // That is the beginning of a long data frame; nothing is held for it.
            assert!(matches!(client.read().await, Said::Reset(..)));
            drop(client);
            served.left().await;
            continue;
        }
        assert_eq!(client.read().await, Said::GoAway(1));
        assert!(matches!(served.left().await, Left::Bad(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_streams_and_no_more() {
    let (mut client, served) = forward();
    let most = u32::try_from(limits::SPDY_STREAMS).unwrap();
    for at in 0..most {
        let id = at.to_string();
        let headers = [("streamtype", "error"), ("port", "7"), ("requestid", &id)];
        let stream = client.begin(&headers).await;
        assert_eq!(client.read().await, Said::Reply(stream));
    }
    let over = client.begin(&[("streamtype", "error"), ("port", "7")]).await;
    assert_eq!(client.read().await, Said::Reset(over, 3));
    drop(client);
    served.left().await;
}

/// All octets of a client that makes its streams, types, resizes, pings and ends its input.
async fn session() -> Vec<u8> {
    let (mut client, served) = spdy(exec("cat", super::TERMINAL), true, Form::Json);
    client.record = Some(Vec::new());
    client.make(super::TERMINAL).await;
    client.send("resize", br#"{"Width":80,"Height":24}"#).await;
    client.send("stdin", b"some words").await;
    client.ping(1).await;
    client.end("stdin").await;
    client.rest().await;
    let octets = client.record.take().unwrap();
    drop(client);
    served.left().await;
    octets
}

#[tokio::test(start_paused = true)]
async fn a_client_may_die_at_every_octet_of_an_exec() {
    let octets = session().await;
    for cut in 0..=octets.len() {
        let (mut client, served) = spdy(exec("cat", super::TERMINAL), true, Form::Json);
        client.try_raw(&octets[..cut]).await;
        // Sometimes at once, sometimes after the server had its say.
        if cut % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(client);
        served.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_die_at_every_octet_of_a_forward() {
    let (mut client, served) = forward();
    client.record = Some(Vec::new());
    for (id, port) in [7, 19, 9, 5, 80].into_iter().enumerate() {
        let (_, stream) = forwards::pair(&mut client, port, u32::try_from(id).unwrap()).await;
        client.raw(&data(stream, 0, b"some words")).await;
    }
    let octets = client.record.take().unwrap();
    drop(client);
    served.task.await.unwrap();
    for cut in 0..=octets.len() {
        let (mut client, served) = forward();
        client.try_raw(&octets[..cut]).await;
        if cut % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(client);
        let programs = std::sync::Arc::clone(&served.programs);
        served.task.await.unwrap();
        // Pods notice a moment later that their client is gone.
        tokio::time::sleep(Duration::from_mins(4)).await;
        assert_eq!(programs.running(), 0, "{cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_octets_cost_a_client_its_connection_at_most(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0usize..400,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let good = session().await;
            let (mut client, served): (Client<_>, _) = spdy(exec("cat", super::TERMINAL), true, Form::Json);
            client.try_raw(&good[..at.min(good.len())]).await;
            client.try_raw(&octets).await;
            drop(client.io.shutdown().await);
            drop(client);
            served.left().await;
        });
    }
}
