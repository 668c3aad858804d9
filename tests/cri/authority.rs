//! Clients that name the socket in `:authority`, as k3s's readiness probe and other plain gRPC clients in Go
//! do: `%2Frun%2F..`, which is no authority by the book. The bytes are such a client's (RFC 9113, RFC 7541).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use wherry_tests::daemon::Daemon;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Text of at most 126 bytes, not compressed.
fn text(value: &str) -> Vec<u8> {
    [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// A call of `Version`: fields are indexed, or literal with an indexed name.
fn version(authority: &str) -> Vec<u8> {
    let fields = [
        vec![0x83, 0x86], // :method POST, :scheme http
        [vec![0x04], text("/runtime.v1.RuntimeService/Version")].concat(),
        [vec![0x01], text(authority)].concat(),
        [vec![0x0f, 0x10], text("application/grpc")].concat(), // content-type
        [vec![0x00], text("te"), text("trailers")].concat(),
    ];
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &fields.concat()),
        frame(DATA, END_STREAM, 1, &[0; 5]), // a message without a field
    ]
    .concat()
}

/// The bytes of the answer's message; the stream ends in order.
fn answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        match (head[3], head[8]) {
            (DATA, 1) => message.extend(payload),
            (HEADERS, 1) if head[4] & END_STREAM != 0 => return message,
            (HEADERS, 1) | (_, 0) if head[3] != 7 => {}
            _ => panic!("a frame {head:?} {payload:?}"),
        }
    }
}

#[test]
fn root_any_authority_is_answered() {
    let Some(daemon) = Daemon::start() else { return };
    for authority in [
        "localhost",
        "%2Frun%2Fwherry%2Fwherry.sock",
        "%2Frun%2Fk3s%2Fcontainerd%2Fcontainerd.sock",
        "/run/wherry/wherry.sock",
        "unix:///run/wherry/wherry.sock",
        "%",
    ] {
        let mut stream = UnixStream::connect(daemon.beside("wherry.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&version(authority)).unwrap();
        let message = answer(&mut stream);
        assert!(message.windows(6).any(|word| word == b"wherry"), "{authority}: {message:?}");
    }
}
