//! Port-forward over SPDY: pairs of streams and the ends of each, as clients see them.

use super::client::Client;
use super::{Said, forward};
use crate::streaming::spdy::frame::tests::{control, data};
use crate::streaming::wire::Left;
use shim_model::limits;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::time::Instant;

/// A pair's two streams, error first, as kubectl makes them.
pub(super) async fn pair(client: &mut Client<DuplexStream>, port: u16, id: u32) -> (u32, u32) {
    let (port, id) = (port.to_string(), id.to_string());
    let mut made = Vec::new();
    for kind in ["error", "data"] {
        let headers = [("streamtype", kind), ("port", &port), ("requestid", &id)];
        let stream = client.begin(&headers).await;
        loop {
            match client.read().await {
                Said::Reply(replied) if replied == stream => break,
                Said::Data(..) | Said::End(_) | Said::Reset(..) => {}
                other => panic!("{other:?}"),
            }
        }
        if kind == "error" {
            // Clients write nothing there, and say so at once.
            client.raw(&data(stream, 1, b"")).await;
        }
        made.push(stream);
    }
    (made[0], made[1])
}

/// What comes on two streams until both are over, in order.
async fn over(client: &mut Client<DuplexStream>) -> Vec<Said> {
    let mut said = Vec::new();
    while said.iter().filter(|one| matches!(one, Said::End(_))).count() < 2 {
        match client.read().await {
            Said::Ping(_) => {}
            Said::Close => panic!("closed after {said:?}"),
            other => said.push(other),
        }
    }
    said
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_until_the_client_ends() {
    let (mut client, served) = forward();
    let (error, stream) = pair(&mut client, 7, 0).await;
    for word in [b"one".as_slice(), b"two"] {
        client.raw(&data(stream, 0, word)).await;
        assert_eq!(client.read().await, Said::Data(stream, word.to_vec()));
    }
    client.raw(&data(stream, 1, b"last")).await;
    assert_eq!(client.read().await, Said::Data(stream, b"last".to_vec()));
    assert_eq!(over(&mut client).await, [Said::End(error), Said::End(stream)]);
    // The connection goes on.
    let (_, stream) = pair(&mut client, 7, 1).await;
    client.raw(&data(stream, 0, b"more")).await;
    assert_eq!(client.read().await, Said::Data(stream, b"more".to_vec()));
    drop(client);
    assert!(matches!(served.left().await, Left::Closed | Left::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_closes_ends_the_pair_although_the_client_does_not() {
    let (mut client, served) = forward();
    let (error, stream) = pair(&mut client, 81, 0).await;
    let begun = Instant::now();
    assert_eq!(client.read().await, Said::Data(stream, b"hello\n".to_vec()));
    assert_eq!(client.read().await, Said::End(stream));
    assert_eq!(client.read().await, Said::End(error));
    // Clients do not end what they do not use.
    assert_eq!(client.read().await, Said::Reset(stream, 5));
    assert_eq!(begun.elapsed(), limits::FORWARD_CLOSING);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_after_the_clients_end() {
    let (mut client, served) = forward();
    let (error, stream) = pair(&mut client, 80, 0).await;
    let begun = Instant::now();
    client.raw(&data(stream, 1, b"ask")).await;
    let said = over(&mut client).await;
    assert_eq!(said, [Said::Data(stream, b"ksa".to_vec()), Said::End(error), Said::End(stream)]);
    // The pod never closes; it is quiet for a minute and given up.
    assert!(begun.elapsed() <= 2 * limits::FORWARD_ANSWER + Duration::from_secs(30));
    client.ping(1).await;
    assert_eq!(client.read().await, Said::Ping(1));
    drop(client);
    served.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_port_where_nobody_listens_is_told_and_the_others_go_on() {
    let (mut client, served) = forward();
    let (_, good) = pair(&mut client, 7, 0).await;
    let (error, stream) = pair(&mut client, 5, 1).await;
    let said = over(&mut client).await;
    let Said::Data(on, text) = &said[0] else { panic!("{said:?}") };
    let text = String::from_utf8_lossy(text);
    assert_eq!((*on, text.as_ref()), (error, "forward port 5 to pod pod: connection refused"));
    assert_eq!(said[1..], [Said::End(error), Said::End(stream)]);
    assert_eq!(client.read().await, Said::Reset(stream, 5));
    client.raw(&data(good, 0, b"still")).await;
    assert_eq!(client.read().await, Said::Data(good, b"still".to_vec()));
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_never_answers_is_given_up() {
    let (mut client, served) = forward();
    let begun = Instant::now();
    let (error, _) = pair(&mut client, 443, 0).await;
    let said = over(&mut client).await;
    let Said::Data(on, text) = &said[0] else { panic!("{said:?}") };
    assert!(*on == error && String::from_utf8_lossy(text).contains("no answer within 15 s"));
    assert_eq!(begun.elapsed(), limits::FORWARD_DIAL);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_closes_the_pods_connection() {
    let (mut client, served) = forward();
    let (error, stream) = pair(&mut client, 19, 0).await;
    assert!(matches!(client.read().await, Said::Data(..)));
    assert_eq!(served.programs.running(), 1);
    client.raw(&control(3, 0, &[stream.to_be_bytes(), 5u32.to_be_bytes()].concat())).await;
    while client.read().await != Said::End(error) {}
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(served.programs.running(), 0);
    client.ping(1).await;
    assert_eq!(client.read().await, Said::Ping(1));
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_lone_stream_is_given_up_and_old_clients_need_no_request() {
    let (mut client, served) = forward();
    let lone = client.begin(&[("streamtype", "error"), ("port", "7"), ("requestid", "9")]).await;
    let lost = client.begin(&[("streamtype", "data"), ("port", "7"), ("requestid", "8")]).await;
    let error = client.begin(&[("streamtype", "error"), ("port", "7")]).await;
    let stream = client.begin(&[("streamtype", "data"), ("port", "7")]).await;
    for made in [lone, lost, error, stream] {
        assert_eq!(client.read().await, Said::Reply(made));
    }
    client.raw(&data(stream, 0, b"old")).await;
    assert_eq!(client.read().await, Said::Data(stream, b"old".to_vec()));
    let mut said = Vec::new();
    while said.len() < 4 {
        match client.read().await {
            Said::Ping(_) => {}
            other => said.push(other),
        }
    }
    assert!(said.contains(&Said::End(lone)) && said.contains(&Said::Reset(lone, 5)), "{said:?}");
    assert!(said.contains(&Said::Reset(lost, 5)), "{said:?}");
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_reads_nothing_stops_its_client() {
    let (mut client, served) = forward();
    let (_, stream) = pair(&mut client, 9, 0).await;
    let mut sent = 0;
    let frame = data(stream, 0, &[0; 10_000]);
    let stopped = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            client.raw(&frame).await;
            sent += 10_000;
        }
    });
    assert!(stopped.await.is_err());
    let held = limits::STREAM_INPUT_CHUNKS * limits::STREAM_CHUNK_BYTES;
    assert!(sent < held + 4 * super::PIPE, "{sent}");
    drop(client);
    // What the client's kernel holds for us hides that it is gone, until we write.
    let begun = Instant::now();
    let programs = std::sync::Arc::clone(&served.programs);
    served.task.await.unwrap();
    assert!(begun.elapsed() <= limits::STREAM_HEARTBEAT);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(programs.running(), 0);
}
