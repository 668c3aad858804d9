//! The clients that kubectl and kubelets have (`hack/peers/stream-client`, client-go) against the server.
//! Their program is built outside of this workspace; without it these tests say that they skip.

use super::listening::server;
use super::programs::Programs;
use super::{ALL, TERMINAL, exec};
use crate::streaming::server::Server;
use crate::streaming::session::Streams;
use crate::streaming::token::Ask;
use serde::Deserialize;
use std::sync::Arc;
use tokio::process::Command;

/// What came of it.
#[derive(Debug, Deserialize)]
struct Answer {
    stdout: String,
    stderr: String,
    bytes: usize,
    code: i32,
    error: String,
}

struct House {
    client: std::ffi::OsString,
    server: Server,
    programs: Arc<Programs>,
}

impl House {
    async fn new() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "where the foreign program is, a person says"
        )]
        let client = std::env::var_os("WHERRY_STREAM_CLIENT");
        let Some(client) = client else {
            eprintln!("skipped: WHERRY_STREAM_CLIENT does not name the program");
            return None;
        };
        let (server, programs) = server(None).await;
        Some(Self { client, server, programs })
    }

    async fn run(&self, ask: Ask, flags: &str) -> Answer {
        let url = self.server.url(ask).unwrap();
        let said = Command::new(&self.client)
            .args(["-url", &url, "-mode"])
            .args(flags.split(' '))
            .output()
            .await
            .expect("the client");
        let told = String::from_utf8_lossy(&said.stderr);
        let answer = serde_json::from_slice(&said.stdout);
        let answer: Answer = answer.unwrap_or_else(|error| panic!("{error}: {told}"));
        while self.programs.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        answer
    }
}

const OUTPUTS: Streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
const COMMANDS: [&str; 4] = [
    "exec-spdy",
    "exec-spdy -protocol v4.channel.k8s.io",
    "exec-ws",
    "exec-ws -protocol v4.channel.k8s.io",
];

#[tokio::test]
async fn commands_of_real_clients_say_and_end_as_they_should() {
    let Some(house) = House::new().await else { return };
    for mode in COMMANDS {
        let answer = house.run(exec("say hello oops", OUTPUTS), mode).await;
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("hello", "oops"), "{mode}");
        assert_eq!((answer.code, answer.error.as_str()), (0, ""), "{mode}");
        for code in [1, 126, 137, 255] {
            let answer = house.run(exec(&format!("exit {code}"), OUTPUTS), mode).await;
            assert_eq!((answer.code, answer.error.as_str()), (code, ""), "{mode}");
        }
        let nowhere = Ask::Exec { container: "x".to_owned(), command: vec![], streams: OUTPUTS };
        let answer = house.run(nowhere, mode).await;
        assert!(answer.error.contains("no such container"), "{mode}: {answer:?}");
    }
}

#[tokio::test]
async fn old_versions_of_real_clients_are_served() {
    let Some(house) = House::new().await else { return };
    for version in ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let mode = format!("exec-spdy -protocol {version}");
        let answer = house.run(exec("say hello oops", OUTPUTS), &mode).await;
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("hello", "oops"), "{mode}");
        assert_eq!(answer.error, "", "{mode}");
        // Clients of the first version leave without the last word when the outputs end before it.
        if version != "channel.k8s.io" {
            let answer = house.run(exec("exit 3", OUTPUTS), &mode).await;
            assert!(answer.error.contains("non-zero exit code: 3"), "{mode}: {answer:?}");
        }
    }
    let answer = house.run(exec("say a b", OUTPUTS), "exec-spdy -protocol v9.channel.k8s.io").await;
    assert!(answer.error.contains("unable to upgrade"), "{answer:?}");
}

#[tokio::test]
async fn input_of_real_clients_ends_and_terminals_have_their_size() {
    let Some(house) = House::new().await else { return };
    for mode in ["exec-spdy", "exec-ws"] {
        let answer = house.run(exec("cat", ALL), &format!("{mode} -stdin words")).await;
        assert_eq!((answer.stdout.as_str(), answer.code), ("words", 0), "{mode}: {answer:?}");
        let flags = format!("{mode} -tty -size 132x43 -stdin x");
        let answer = house.run(exec("sizes 1", TERMINAL), &flags).await;
        assert_eq!((answer.stdout.as_str(), answer.code), ("132x43\n", 0), "{mode}: {answer:?}");
        // A program that reads nothing does not stop a client that types much.
        let answer = house.run(exec("deaf", ALL), &format!("{mode} -fill 5000000")).await;
        assert_eq!((answer.code, answer.error.as_str()), (7, ""), "{mode}: {answer:?}");
    }
}

#[tokio::test]
async fn many_bytes_arrive_at_real_clients() {
    let Some(house) = House::new().await else { return };
    for mode in ["exec-spdy", "exec-ws"] {
        let answer = house.run(exec("bytes 30000000", OUTPUTS), mode).await;
        assert_eq!((answer.bytes, answer.code), (30_000_000, 0), "{mode}: {answer:?}");
        let answer = house.run(exec("bytes 3000000", OUTPUTS), &format!("{mode} -slow 20ms")).await;
        assert_eq!((answer.bytes, answer.code), (3_000_000, 0), "{mode}: {answer:?}");
        let answer = house.run(exec("cat", ALL), &format!("{mode} -fill 10000000")).await;
        assert_eq!((answer.bytes, answer.code), (10_000_000, 0), "{mode}: {answer:?}");
    }
}

#[tokio::test]
async fn ports_are_reached_by_real_clients() {
    let Some(house) = House::new().await else { return };
    let ask = || Ask::Forward { sandbox: "pod".to_owned(), ports: vec![] };
    for mode in ["forward-spdy", "forward-ws"] {
        let answer = house.run(ask(), &format!("{mode} -port 7 -parallel 50")).await;
        // "line 0\n" to "line 49\n".
        assert_eq!((answer.bytes, answer.error.as_str()), (10 * 7 + 40 * 8, ""), "{mode}");
        let answer = house.run(ask(), &format!("{mode} -port 81")).await;
        assert_eq!((answer.stdout.as_str(), answer.error.as_str()), ("hello\n", ""), "{mode}");
        let answer = house.run(ask(), &format!("{mode} -port 5")).await;
        assert_eq!((answer.bytes, answer.code), (0, 0), "{mode}: {answer:?}");
    }
}
