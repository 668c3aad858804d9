//! A SPDY client for tests: says what it is told to say, right or wrong, and reads what the server says.
//! Its numbers of streams are those of the order in which it made them: 1, 3, 5, …

use crate::streaming::session::Streams;
use crate::streaming::spdy::frame::tests::{control, data, syn};
use crate::streaming::spdy::headers::Inflater;
use crate::streaming::spdy::headers::tests::Deflater;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Reply(u32),
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32, u32),
    Ping(u32),
    Window(u32, u32),
    GoAway(u32),
    Close,
}

/// All that was said on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) reset: bool,
}

impl Heard {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

pub(crate) struct Client<S> {
    pub(crate) io: S,
    pub(crate) zlib: Deflater,
    replies: Inflater,
    next: u32,
    /// Numbers of the streams by name.
    pub(crate) streams: BTreeMap<&'static str, u32>,
    /// Everything that was said so far, if it is kept.
    pub(crate) record: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(io: S) -> Self {
        let (zlib, replies) = (Deflater::new(), Inflater::default());
        Self { io, zlib, replies, next: 1, streams: BTreeMap::new(), record: None }
    }

    // === saying ===

    pub(crate) async fn raw(&mut self, octets: &[u8]) {
        if let Some(record) = &mut self.record {
            record.extend_from_slice(octets);
        }
        self.io.write_all(octets).await.expect("the server listens");
    }

    /// Says it if anybody listens.
    pub(crate) async fn try_raw(&mut self, octets: &[u8]) -> bool {
        self.io.write_all(octets).await.is_ok()
    }

    pub(crate) async fn begin(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let frame = syn(&mut self.zlib, stream, 0, headers);
        self.raw(&frame).await;
        stream
    }

    /// Makes a command's streams as kubelets do, one after the other's reply.
    pub(crate) async fn make(&mut self, streams: Streams) {
        let all = [
            ("error", true),
            ("stdin", streams.stdin),
            ("stdout", streams.stdout),
            ("stderr", streams.stderr),
            ("resize", streams.tty),
        ];
        for (name, _) in all.into_iter().filter(|(_, asked)| *asked) {
            let stream = self.begin(&[("streamtype", name)]).await;
            assert_eq!(self.read().await, Said::Reply(stream), "{name}");
            self.streams.insert(name, stream);
        }
    }

    pub(crate) async fn send(&mut self, name: &str, bytes: &[u8]) {
        let frame = data(self.streams[name], 0, bytes);
        self.raw(&frame).await;
    }

    pub(crate) async fn end(&mut self, name: &str) {
        let frame = data(self.streams[name], 1, b"");
        self.raw(&frame).await;
    }

    pub(crate) async fn ping(&mut self, id: u32) {
        self.raw(&control(6, 0, &id.to_be_bytes())).await;
    }

    // === hearing ===

    pub(crate) async fn read(&mut self) -> Said {
        let mut head = [0; 8];
        if self.io.read_exact(&mut head).await.is_err() {
            return Said::Close;
        }
        let number = |octets: &[u8]| u32::from_be_bytes(octets.try_into().unwrap());
        let length = usize::try_from(number(&head[4..]) & 0x00ff_ffff).unwrap();
        assert!(length <= 1 << 20, "{length}");
        let mut body = vec![0; length];
        if self.io.read_exact(&mut body).await.is_err() {
            return Said::Close;
        }
        if head[0] & 0x80 == 0 {
            let stream = number(&head[..4]);
            return match (head[4], body.is_empty()) {
                (0, _) => Said::Data(stream, body),
                (1, true) => Said::End(stream),
                other => panic!("flags {other:?}"),
            };
        }
        assert_eq!(
            (&head[..3], head[4]),
            (&[0x80, 3, 0][..], 0),
            "no flags on a frame of version 3"
        );
        let first = number(&body[..4]);
        match head[3] {
            2 => {
                let headers = self.replies.block(&body[4..]).expect("a header block");
                assert_eq!(headers, super::super::spdy::headers::Headers::default());
                Said::Reply(first)
            }
            3 => Said::Reset(first, number(&body[4..])),
            6 => Said::Ping(first),
            7 => {
                assert!(body[4..] == [0; 4] || body[4..] == [0, 0, 0, 1]);
                Said::GoAway(number(&body[4..]))
            }
            9 => Said::Window(first, number(&body[4..])),
            other => panic!("a frame of type {other}"),
        }
    }

    /// Everything until the server has said its last word, by the streams' names.
    pub(crate) async fn rest(&mut self) -> BTreeMap<String, Heard> {
        let mut heard: BTreeMap<u32, Heard> = BTreeMap::new();
        loop {
            match self.read().await {
                Said::Data(stream, bytes) => {
                    let on = heard.entry(stream).or_default();
                    assert!(!on.ended && !on.reset, "data after the end of {stream}");
                    on.bytes.extend(bytes);
                }
                Said::End(stream) => heard.entry(stream).or_default().ended = true,
                Said::Reset(stream, _) => heard.entry(stream).or_default().reset = true,
                Said::Ping(_) | Said::Window(..) | Said::Reply(_) => {}
                Said::GoAway(_) | Said::Close => break,
            }
        }
        let name = |stream: u32| {
            let known = self.streams.iter().find(|(_, number)| **number == stream);
            known.map_or_else(|| stream.to_string(), |(name, _)| (*name).to_owned())
        };
        heard.into_iter().map(|(stream, on)| (name(stream), on)).collect()
    }
}
