//! Exec, attach and port-forward over WebSocket, as libraries of other languages and client-go use it.

use super::programs::Programs;
use super::{ALL, SUCCESS, TERMINAL, code, exec};
use crate::streaming::portforward;
use crate::streaming::session::Streams;
use crate::streaming::status::Form;
use crate::streaming::websocket::channels::{Coding, Framing};
use crate::streaming::websocket::tunnel::Tunnel;
use crate::streaming::wire::Left;
use crate::streaming::{command, tests::client::Client, tests::client::Said};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use shim_model::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

const V4: Framing = Framing { coding: Coding::Binary, closes: false };
const V5: Framing = Framing { coding: Coding::Binary, closes: true };
const TEXT: Framing = Framing { coding: Coding::Base64, closes: false };

struct Socket {
    io: WebSocketStream<DuplexStream>,
    text: bool,
    programs: Arc<Programs>,
    task: JoinHandle<Left>,
}

impl Socket {
    async fn new(
        theirs: DuplexStream,
        text: bool,
        served: (Arc<Programs>, JoinHandle<Left>),
    ) -> Self {
        let io = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        Self { io, text, programs: served.0, task: served.1 }
    }

    async fn command(command: &str, streams: Streams, framing: Framing, form: Form) -> Self {
        let (ours, theirs) = tokio::io::duplex(super::PIPE);
        let programs = Arc::new(Programs::default());
        let (backend, ask) = (Arc::clone(&programs), exec(command, streams));
        let task = tokio::spawn(async move {
            let idle = limits::STREAM_IDLE;
            command::Client { backend: &*backend, ask: &ask, idle }
                .websocket(ours, framing, form)
                .await
        });
        Self::new(theirs, framing.coding == Coding::Base64, (programs, task)).await
    }

    async fn ports(ports: &'static [u16], framing: Framing) -> Self {
        let (ours, theirs) = tokio::io::duplex(super::PIPE);
        let programs = Arc::new(Programs::default());
        let backend = Arc::clone(&programs);
        let task = tokio::spawn(async move {
            let idle = limits::STREAM_IDLE;
            portforward::Client { backend: &*backend, sandbox: "pod", idle }
                .websocket(ours, framing, ports)
                .await
        });
        Self::new(theirs, framing.coding == Coding::Base64, (programs, task)).await
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = if self.text {
            Message::text(format!("{channel}{}", BASE64.encode(bytes)))
        } else {
            Message::binary([&[channel][..], bytes].concat())
        };
        self.io.send(message).await.expect("the server listens");
    }

    /// The next message: its channel and bytes; `None` at the end.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            return match self.io.next().await?.ok()? {
                Message::Binary(bytes) if !self.text => Some((bytes[0], bytes[1..].to_vec())),
                Message::Text(text) if self.text => {
                    let octets = text.as_bytes();
                    Some((octets[0] - b'0', BASE64.decode(&octets[1..]).expect("base64")))
                }
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.expect("a reason").code), 1_000);
                    None
                }
                Message::Pong(_) => continue,
                other => panic!("{other:?}"),
            };
        }
    }

    async fn rest(&mut self) -> BTreeMap<u8, String> {
        let mut heard: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        while let Some((channel, bytes)) = self.read().await {
            heard.entry(channel).or_default().extend(bytes);
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        heard.into_iter().map(|(channel, bytes)| (channel, text(bytes))).collect()
    }

    async fn left(self) -> Left {
        drop(self.io);
        let left = self.task.await.expect("no bug");
        assert_eq!(self.programs.running(), 0);
        left
    }
}

#[tokio::test(start_paused = true)]
async fn every_form_of_an_exec_says_the_same() {
    for (framing, form) in [
        (V4, Form::Json),
        (V5, Form::Json),
        (TEXT, Form::Json),
        (V4, Form::Text),
        (TEXT, Form::Text),
    ] {
        let mut socket = Socket::command("say hello oops", ALL, framing, form).await;
        assert_eq!(socket.read().await, Some((1, Vec::new())), "connected");
        let heard = socket.rest().await;
        assert_eq!((heard[&1].as_str(), heard[&2].as_str()), ("hello", "oops"));
        match form {
            Form::Json => assert_eq!(heard[&3], SUCCESS),
            Form::Text => assert!(!heard.contains_key(&3)),
        }
        assert!(matches!(socket.left().await, Left::Finished));
        let mut socket = Socket::command("exit 3", ALL, framing, form).await;
        let heard = socket.rest().await;
        match form {
            Form::Json => assert_eq!(heard[&3], code(3)),
            Form::Text => assert!(heard[&3].ends_with("exit code: 3"), "{heard:?}"),
        }
        socket.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn input_ends_by_a_message_of_v5_only() {
    let mut socket = Socket::command("cat", ALL, V5, Form::Json).await;
    socket.send(0, b"words").await;
    socket.send(255, &[0]).await;
    let heard = socket.rest().await;
    assert_eq!((heard[&1].as_str(), heard[&3].as_str()), ("words", SUCCESS));
    socket.left().await;
    let mut socket = Socket::command("cat", ALL, V4, Form::Json).await;
    socket.send(255, &[0]).await;
    socket.send(0, b"words").await;
    assert_eq!(socket.read().await, Some((1, Vec::new())));
    assert_eq!(socket.read().await, Some((1, b"words".to_vec())));
    assert_eq!(socket.programs.running(), 1);
    assert!(matches!(socket.left().await, Left::Closed | Left::Bad(_) | Left::Broken(_)));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_is_resized_and_unknown_channels_are_passed_over() {
    let mut socket = Socket::command("sizes", TERMINAL, V4, Form::Json).await;
    assert_eq!(socket.read().await, Some((1, Vec::new())));
    for channel in [1, 2, 3, 5, 77, 254] {
        socket.send(channel, b"lost").await;
    }
    socket.io.send(Message::binary(Bytes::new())).await.unwrap();
    socket.send(4, br#"{"Width":80,"Height":24}"#).await;
    assert_eq!(socket.read().await, Some((1, b"80x24\n".to_vec())));
    socket.left().await;
}

#[tokio::test(start_paused = true)]
async fn input_without_the_asking_is_passed_over() {
    let only = Streams { stdout: true, ..Streams::default() };
    let mut socket = Socket::command("exit 0", only, V4, Form::Json).await;
    socket.send(0, b"x").await;
    assert_eq!(socket.rest().await[&3], SUCCESS);
    socket.left().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_of_the_protocol_ends_the_connection() {
    let mut socket = Socket::command("sleep", ALL, TEXT, Form::Json).await;
    socket.io.send(Message::text("0***")).await.unwrap();
    assert!(matches!((&mut socket.task).await, Ok(Left::Bad(_))));
    assert_eq!(socket.programs.running(), 0);
    let (ours, mut theirs) = tokio::io::duplex(super::PIPE);
    let programs = Arc::new(Programs::default());
    let backend = Arc::clone(&programs);
    let task = tokio::spawn(async move {
        let ask = exec("sleep", ALL);
        command::Client { backend: &*backend, ask: &ask, idle: limits::STREAM_IDLE }
            .websocket(ours, V4, Form::Json)
            .await
    });
    // A frame without a mask, and one that says it is larger than all.
    theirs.write_all(&[0x82, 0x01, 0x00]).await.unwrap();
    assert!(matches!(task.await.unwrap(), Left::Bad(_)));
    assert_eq!(programs.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_hears_a_sign_of_life() {
    let mut socket = Socket::command("sleep", ALL, V5, Form::Json).await;
    assert_eq!(socket.read().await, Some((1, Vec::new())));
    // client-go gives up after 61 seconds without one.
    let sign = timeout(Duration::from_mins(1), socket.io.next()).await;
    assert!(matches!(sign, Ok(Some(Ok(Message::Pong(_))))));
    socket.left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_and_pings_holds_little() {
    let (ours, mut theirs) = tokio::io::duplex(super::PIPE);
    let programs = Arc::new(Programs::default());
    let backend = Arc::clone(&programs);
    let task = tokio::spawn(async move {
        let ask = exec("sleep", ALL);
        command::Client { backend: &*backend, ask: &ask, idle: limits::STREAM_IDLE }
            .websocket(ours, V4, Form::Json)
            .await
    });
    // A ping of 125 bytes wants an answer as large.
    let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[7; 125]].concat();
    let mut sent = 0usize;
    let flood = timeout(Duration::from_mins(1), async {
        while theirs.write_all(&ping).await.is_ok() && sent < 4 << 20 {
            sent += ping.len();
        }
    });
    drop(flood.await);
    let mut read = vec![0; 1 << 20];
    let mut back = 0;
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(1), theirs.read(&mut read)).await
    {
        back += count;
    }
    assert!(back < 512 << 10, "{back} bytes waited for a client that reads nothing");
    drop(theirs);
    task.await.unwrap();
    assert_eq!(programs.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn ports_are_pairs_of_channels() {
    for framing in [V4, TEXT] {
        let mut socket = Socket::ports(&[7, 81, 5], framing).await;
        let mut heard: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        socket.send(0, b"echo").await;
        let refused = b"forward port 5 to pod pod: connection refused";
        // Each of the six channels begins with its port.
        let all = 6 * 2 + b"echo".len() + b"hello\n".len() + refused.len();
        while heard.values().map(Vec::len).sum::<usize>() < all {
            let (channel, bytes) = socket.read().await.expect("open");
            heard.entry(channel).or_default().extend(bytes);
        }
        assert_eq!(heard[&0], b"\x07\x00echo");
        assert_eq!(heard[&1], b"\x07\x00");
        assert_eq!(heard[&2], b"\x51\x00hello\n");
        assert_eq!(&heard[&5][2..], refused);
        let programs = Arc::clone(&socket.programs);
        drop(socket.io);
        socket.task.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(programs.running(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_carries_spdy_whatever_its_messages() {
    let (ours, theirs) = tokio::io::duplex(super::PIPE);
    let programs = Arc::new(Programs::default());
    let backend = Arc::clone(&programs);
    let task = tokio::spawn(async move {
        let client =
            portforward::Client { backend: &*backend, sandbox: "pod", idle: limits::STREAM_IDLE };
        client.spdy(Tunnel::open(ours).await).await
    });
    // The same plain stream on the client's side, cut into odd messages by a small pipe.
    let (plain, inner) = tokio::io::duplex(7);
    let carry = tokio::spawn(async move {
        let socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let (mut sink, mut stream) = socket.split();
        let (mut read, mut write) = tokio::io::split(inner);
        let out = async {
            let mut buffer = [0; 5];
            while let Ok(count @ 1..) = read.read(&mut buffer).await {
                sink.send(Message::binary(buffer[..count].to_vec())).await.unwrap();
            }
            drop(sink.close().await);
        };
        let back = async {
            while let Some(Ok(Message::Binary(bytes))) = stream.next().await {
                write.write_all(&bytes).await.unwrap();
            }
        };
        tokio::join!(out, back);
    });
    let mut client = Client::new(plain);
    let (error, stream) = super::forwards::pair(&mut client, 7, 0).await;
    let frame = super::super::spdy::frame::tests::data(stream, 1, b"through");
    client.raw(&frame).await;
    let mut said = Vec::new();
    while said.last() != Some(&Said::End(stream)) {
        said.push(client.read().await);
    }
    let mut text = Vec::new();
    said.retain(|one| match one {
        Said::Data(_, bytes) => {
            text.extend_from_slice(bytes);
            false
        }
        _ => true,
    });
    assert_eq!(text, b"through");
    assert_eq!(said, [Said::End(error), Said::End(stream)]);
    drop(client);
    assert!(matches!(task.await.unwrap(), Left::Closed));
    carry.await.unwrap();
    assert_eq!(programs.running(), 0);
}
