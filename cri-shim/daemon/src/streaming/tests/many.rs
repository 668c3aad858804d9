//! A thousand at once: connections with a program each, and pairs on one connection. All bytes arrive, and
//! afterwards nothing is left.

use super::client::{Client, Said};
use super::programs::Programs;
use super::{ALL, SUCCESS, exec, forward, spdy_with};
use crate::streaming::spdy::frame::tests::data;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_commands_at_once() {
    let programs = Arc::new(Programs::default());
    let mut all = JoinSet::new();
    for number in 0..1_000 {
        let (mut client, served) = spdy_with(Arc::clone(&programs), exec("cat", ALL));
        all.spawn(async move {
            client.make(ALL).await;
            let text = format!("number {number}");
            client.send("stdin", text.as_bytes()).await;
            client.end("stdin").await;
            let heard = client.rest().await;
            assert_eq!(heard["stdout"].text(), text);
            assert_eq!(heard["error"].text(), SUCCESS);
            drop(client);
            served.task.await.expect("no bug");
        });
    }
    while let Some(one) = all.join_next().await {
        one.expect("a client");
    }
    assert_eq!(programs.running(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pairs_on_one_connection() {
    let (mut client, served) = forward();
    let mut streams = BTreeMap::new();
    for id in 0..1_000u32 {
        let (_, stream) = super::forwards::pair(&mut client, 7, id).await;
        streams.insert(stream, id);
    }
    while served.programs.running() < 1_000 {
        tokio::task::yield_now().await;
    }
    for (stream, id) in &streams {
        client.raw(&data(*stream, 1, format!("pair {id}").as_bytes())).await;
    }
    let mut heard: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut ended = 0;
    while ended < streams.len() {
        match next(&mut client).await {
            Said::Data(stream, bytes) => heard.entry(stream).or_default().extend(bytes),
            Said::End(stream) if streams.contains_key(&stream) => ended += 1,
            _ => {}
        }
    }
    for (stream, id) in &streams {
        assert_eq!(heard[stream], format!("pair {id}").as_bytes());
    }
    // Each pod's connection ended with its pair.
    while served.programs.running() > 0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    served.left().await;
}

async fn next(client: &mut Client<DuplexStream>) -> Said {
    match client.read().await {
        Said::Close => panic!("closed"),
        said => said,
    }
}
