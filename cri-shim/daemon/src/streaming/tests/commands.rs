//! Exec and attach over SPDY: what a client sees of programs of every kind, and that they end with it.

use super::{ALL, SUCCESS, Said, TERMINAL, code, exec, forward, spdy, started};
use crate::streaming::session::Streams;
use crate::streaming::spdy::frame::tests::{control, syn};
use crate::streaming::status::Form;
use crate::streaming::token::Ask;
use crate::streaming::wire::Left;
use shim_model::limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test(start_paused = true)]
async fn outputs_status_and_ends_come_in_order() {
    let (mut client, served) = started("say hello oops", ALL).await;
    let (out, err, error) =
        (client.streams["stdout"], client.streams["stderr"], client.streams["error"]);
    let mut said = Vec::new();
    while !matches!(said.last(), Some(Said::GoAway(_) | Said::Close)) {
        said.push(client.read().await);
    }
    let at = |what: &Said| said.iter().position(|one| one == what).expect("it was said");
    assert!(at(&Said::Data(out, b"hello".to_vec())) < at(&Said::End(out)));
    assert!(at(&Said::Data(err, b"oops".to_vec())) < at(&Said::End(err)));
    let status = at(&Said::Data(error, SUCCESS.as_bytes().to_vec()));
    assert!(at(&Said::End(out)) < status && at(&Said::End(err)) < status);
    assert_eq!(at(&Said::End(error)), said.len() - 2, "{said:?}");
    assert_eq!(said.last(), Some(&Said::GoAway(0)));
    drop(client);
    assert!(matches!(served.left().await, Left::Finished));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_input_ends_a_program_that_reads_it() {
    let (mut client, served) = started("cat", ALL).await;
    client.send("stdin", b"one ").await;
    client.send("stdin", b"two").await;
    client.end("stdin").await;
    let heard = client.rest().await;
    assert_eq!(heard["stdout"].text(), "one two");
    assert_eq!(heard["error"].text(), SUCCESS);
    assert!(heard.values().all(|on| on.ended), "{heard:?}");
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn every_code_is_told() {
    for number in [1, 126, 127, 137, 255] {
        let (mut client, served) = started(&format!("exit {number}"), ALL).await;
        assert_eq!(client.rest().await["error"].text(), code(number));
        drop(client);
        served.left().await;
    }
    let nowhere = Ask::Exec { container: "x".to_owned(), command: vec![], streams: ALL };
    let (mut client, served) = spdy(nowhere, true, Form::Json);
    client.make(ALL).await;
    let heard = client.rest().await;
    assert!(heard["error"].text().contains("no such container"), "{heard:?}");
    assert!(heard["stdout"].ended);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn old_clients_read_plain_words_of_failures_only() {
    for (command, word) in
        [("exit 0", ""), ("exit 3", "command terminated with non-zero exit code: 3")]
    {
        let (mut client, served) = spdy(exec(command, ALL), false, Form::Text);
        client.make(ALL).await;
        let heard = client.rest().await;
        assert_eq!((heard["error"].text().as_str(), heard["error"].ended), (word, true));
        drop(client);
        served.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_before_the_last_stream() {
    let (mut client, served) = spdy(exec("sizes", TERMINAL), true, Form::Json);
    client.make(Streams { tty: false, ..TERMINAL }).await;
    tokio::time::sleep(limits::STREAM_CREATION / 2).await;
    assert_eq!(served.programs.started.load(Ordering::SeqCst), 0);
    let resize = client.begin(&[("streamtype", "resize")]).await;
    client.streams.insert("resize", resize);
    while client.read().await != Said::Reply(resize) {}
    for size in [r#"{"Width":80,"Height":24}"#, r#"{"Width":0,"Height":0}"#, "{\"Width\":1,"] {
        client.send("resize", size.as_bytes()).await;
    }
    assert_eq!(client.read().await, Said::Data(client.streams["stdout"], b"80x24\n".to_vec()));
    client.send("resize", b"\"Height\":2}").await;
    client.end("resize").await;
    let heard = client.rest().await;
    assert_eq!(heard["stdout"].text(), "1x2\n");
    assert_eq!(heard["error"].text(), SUCCESS);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_without_all_its_streams_is_told_and_left() {
    let (mut client, served) = spdy(exec("cat", ALL), true, Form::Json);
    client.make(Streams::default()).await;
    let begun = Instant::now();
    let heard = client.rest().await;
    assert_eq!(begun.elapsed(), limits::STREAM_CREATION);
    assert!(heard["error"].text().contains("did not make its streams"), "{heard:?}");
    drop(client);
    assert_eq!(served.programs.started.load(Ordering::SeqCst), 0);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_wants_are_refused() {
    let (mut client, served) = spdy(exec("cat", ALL), true, Form::Json);
    client.make(Streams::default()).await;
    for headers in [&[("streamtype", "error")][..], &[("streamtype", "x")], &[], &[("a", "b")]] {
        let stream = client.begin(headers).await;
        assert_eq!(client.read().await, Said::Reset(stream, 3), "{headers:?}");
    }
    let (even, low) = (
        syn(&mut client.zlib, 2, 0, &[("streamtype", "stdin")]),
        syn(&mut client.zlib, 1, 0, &[("streamtype", "stdin")]),
    );
    client.raw(&even).await;
    assert_eq!(client.read().await, Said::Reset(2, 1));
    client.raw(&low).await;
    assert_eq!(client.read().await, Said::Reset(1, 1));
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_stream_is_refused_without_its_headers() {
    let (mut client, served) = started("sleep", ALL).await;
    let late = client.begin(&[("streamtype", "stdin")]).await;
    assert_eq!(client.read().await, Said::Reset(late, 3));
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_program_left_behind_holds_nobody() {
    let (mut client, served) = started("leave", ALL).await;
    let begun = Instant::now();
    assert_eq!(client.rest().await["error"].text(), SUCCESS);
    assert_eq!(begun.elapsed(), limits::EXEC_DRAIN);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_closes_everything_goes_on() {
    let (mut client, served) = started("deaf", ALL).await;
    let begun = Instant::now();
    // Far more than anybody holds: what nobody takes must not stop the connection.
    for _ in 0..100 {
        client.send("stdin", &vec![0; 60_000]).await;
    }
    client.ping(1).await;
    loop {
        match client.read().await {
            Said::Ping(1) => break,
            Said::End(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.rest().await["error"].text(), code(7));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_in_quiet_and_in_noise() {
    for command in ["sleep", "yes"] {
        let (mut client, served) = started(command, ALL).await;
        for id in (1..21).step_by(2) {
            client.ping(id).await;
            let mut before = 0;
            while client.read().await != Said::Ping(id) {
                before += 1;
                assert!(before < 50, "the answer waits behind all the data");
            }
        }
        drop(client);
        served.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_bytes_arrive_at_a_client_that_reads_slowly() {
    let size = 3_000_000;
    let (mut client, served) = started(&format!("bytes {size}"), ALL).await;
    let mut got = 0;
    loop {
        tokio::time::sleep(Duration::from_mins(1)).await;
        match client.read().await {
            Said::Data(stream, bytes) if stream == client.streams["stdout"] => got += bytes.len(),
            Said::End(stream) if stream == client.streams["stdout"] => break,
            Said::Ping(_) | Said::End(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, size);
    assert_eq!(client.rest().await["error"].text(), SUCCESS);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_goodbye_takes_its_program_along() {
    let (mut client, served) = started("sleep", ALL).await;
    client.raw(&control(7, 0, &[0; 8])).await;
    let programs = Arc::clone(&served.programs);
    assert!(matches!(served.left().await, Left::Closed));
    assert_eq!(programs.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn several_clients_are_attached_to_one_container() {
    let ask = Ask::Attach { container: "c".to_owned(), streams: TERMINAL };
    let (mut first, served) = spdy(ask.clone(), true, Form::Json);
    first.make(TERMINAL).await;
    let programs = Arc::clone(&served.programs);
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(super::spdy_with(Arc::clone(&programs), ask.clone()));
    }
    for (client, _) in &mut others {
        client.make(TERMINAL).await;
    }
    timeout(Duration::from_secs(1), async {
        while programs.running() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    programs.main.send("to all").unwrap();
    for client in others.iter_mut().map(|(client, _)| client).chain([&mut first]) {
        let stdout = client.streams["stdout"];
        assert_eq!(client.read().await, Said::Data(stdout, b"to all".to_vec()));
        client.send("stdin", b"a").await;
    }
    while programs.typed.lock().unwrap().len() < 4 {
        tokio::task::yield_now().await;
    }
    // One leaves, and takes nothing along.
    let (client, gone) = others.pop().unwrap();
    drop(client);
    assert!(matches!(gone.task.await.unwrap(), Left::Closed | Left::Broken(_)));
    programs.main.send("end").unwrap();
    for client in others.iter_mut().map(|(client, _)| client).chain([&mut first]) {
        assert_eq!(client.rest().await["error"].text(), SUCCESS);
    }
    drop((first, others));
    served.left().await;
    assert_eq!(*programs.typed.lock().unwrap(), b"aaaa");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_counts_windows_can_send_for_ever() {
    let (mut client, served) = started("cat", ALL).await;
    client.raw(&control(4, 0, &[0, 0, 0, 0])).await;
    let stdin = client.streams["stdin"];
    let (mut stream, mut all, mut left) = (64i64 << 10, 64i64 << 10, 2i64 << 20);
    while left > 0 {
        let now = stream.min(all).min(left).min(9_999);
        if now > 0 {
            client.send("stdin", &vec![1; usize::try_from(now).unwrap()]).await;
            (stream, all, left) = (stream - now, all - now, left - now);
        }
        while stream == 0 || all == 0 {
            match client.read().await {
                Said::Window(0, granted) => all += i64::from(granted),
                Said::Window(id, granted) if id == stdin => stream += i64::from(granted),
                Said::Data(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    client.end("stdin").await;
    assert_eq!(client.rest().await["error"].text(), SUCCESS);
    drop(client);
    served.left().await;
}

#[tokio::test(start_paused = true)]
async fn quiet_connections_end_after_the_idle_time() {
    for forwards in [false, true] {
        let begun = Instant::now();
        let (mut client, served) = if forwards { forward() } else { started("sleep", ALL).await };
        let mut asked = 0;
        while let Said::Ping(id) = client.read().await {
            // Answers to the server's own questions are no sign of use.
            assert_eq!(id % 2, 0);
            client.try_raw(&control(6, 0, &id.to_be_bytes())).await;
            asked += 1;
        }
        assert_eq!(begun.elapsed().as_secs(), limits::STREAM_IDLE.as_secs());
        assert!(asked > 100);
        drop(client);
        assert!(matches!(served.left().await, Left::Idle));
    }
}
