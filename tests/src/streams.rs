//! A client of streaming URLs, over WebSocket: exec, attach and port-forward as libraries of other
//! languages use them. Connects from inside the test's space, where the daemon listens. The other wire,
//! SPDY, has clients of its own beside the server (`cri-shim/daemon/src/streaming/tests`).

use crate::space::Space;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// An open connection.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
    heard: BTreeMap<u8, Vec<u8>>,
}

/// How the channels of a command are numbered.
pub const STDOUT: u8 = 1;
/// Standard error.
pub const STDERR: u8 = 2;
/// The last word.
pub const STATUS: u8 = 3;

impl Stream {
    /// Connects and asks for a protocol.
    pub fn open(space: &Space, url: &str, protocol: &str) -> Self {
        let address = url.split('/').nth(2).expect("a host");
        let tcp = space.connect(address.parse().expect("an address"));
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut request = url.replacen("http://", "ws://", 1).into_client_request().unwrap();
        let name = "sec-websocket-protocol";
        request.headers_mut().insert(name, HeaderValue::from_str(protocol).unwrap());
        let (socket, answer) = client(request, tcp).unwrap();
        assert_eq!(answer.headers()[name], protocol);
        Self { socket, heard: BTreeMap::new() }
    }

    /// Says something on a channel.
    pub fn say(&mut self, channel: u8, bytes: &[u8]) {
        self.socket.send(Message::binary([&[channel][..], bytes].concat())).unwrap();
    }

    /// Ends a channel (v5).
    pub fn end(&mut self, channel: u8) {
        self.say(255, &[channel]);
    }

    /// One more message; false at the end of the connection.
    fn hear(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Binary(message)) => {
                let (channel, bytes) = message.split_first().expect("a channel");
                self.heard.entry(*channel).or_default().extend_from_slice(bytes);
                true
            }
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => false,
            Ok(_) => true,
            Err(error) => panic!("{error}; heard {:?}", self.heard),
        }
    }

    /// What was heard on a channel so far.
    pub fn text(&self, channel: u8) -> String {
        let heard = self.heard.get(&channel).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(heard).into_owned()
    }

    /// Listens until a channel holds a text.
    pub fn until(&mut self, channel: u8, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.text(channel).contains(text) {
            assert!(self.hear() && Instant::now() < end, "no {text:?} in {:?}", self.heard);
        }
    }

    /// Listens to the end.
    pub fn rest(&mut self) {
        while self.hear() {}
    }

    /// Listens to the end of a command; its code.
    pub fn code(&mut self) -> u8 {
        self.rest();
        let status: serde_json::Value = serde_json::from_str(&self.text(STATUS)).unwrap();
        if status["status"] == "Success" {
            return 0;
        }
        let code = &status["details"]["causes"][0]["message"];
        code.as_str().and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{status}"))
    }
}
