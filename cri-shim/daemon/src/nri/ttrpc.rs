//! Messages of ttrpc: ten bytes of header (length, stream, kind, flags), then protobuf. Pure. Only what NRI
//! needs of it: one request, one answer. What is longer than the protocol allows, or no message at all, ends
//! the connection; a stream that nobody waits on is not an error here.

use bytes::Buf;
use prost::Message as _;
use shim_model::limits;

/// Bytes before a payload.
pub(super) const HEADER: usize = 10;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// Nothing but this message comes from its sender on its stream.
const REMOTE_CLOSED: u8 = 1;

/// Codes of a status, as gRPC numbers them.
pub(super) const INVALID_ARGUMENT: i32 = 3;
pub(super) const UNIMPLEMENTED: i32 = 12;

/// A request.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(string, tag = "1")]
    pub(super) service: String,
    #[prost(string, tag = "2")]
    pub(super) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(super) timeout_nano: i64,
}

/// Its answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) payload: Vec<u8>,
}

/// How it went.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Came {
    /// Somebody asks.
    Request { stream: u32, request: Request },
    /// Somebody answers.
    Response { stream: u32, response: Response },
}

/// A request, ready to be sent.
pub(super) fn request(stream: u32, request: &Request) -> Result<Vec<u8>, String> {
    message(stream, REQUEST, REMOTE_CLOSED, &request.encode_to_vec())
}

/// An answer, ready to be sent.
pub(super) fn response(stream: u32, response: &Response) -> Result<Vec<u8>, String> {
    message(stream, RESPONSE, 0, &response.encode_to_vec())
}

fn message(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Result<Vec<u8>, String> {
    let most = limits::NRI_MESSAGE_BYTES;
    if payload.len() > most {
        return Err(format!("a message of {} bytes, at most {most} are allowed", payload.len()));
    }
    let mut bytes = Vec::with_capacity(payload.len().saturating_add(HEADER));
    bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, flags]);
    bytes.extend(payload);
    Ok(bytes)
}

/// Bytes of one connection until they are messages.
#[derive(Debug, Default)]
pub(super) struct Assembler(Vec<u8>);

impl Assembler {
    /// More of them.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next message that is whole.
    pub(super) fn take(&mut self) -> Result<Option<Came>, String> {
        let Some((header, rest)) = self.0.split_first_chunk::<HEADER>() else { return Ok(None) };
        let mut header = header.as_slice();
        let (length, stream, kind) = (header.get_u32(), header.get_u32(), header.get_u8());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > limits::NRI_MESSAGE_BYTES {
            return Err(format!("a message of {length} bytes"));
        }
        let Some((payload, _)) = rest.split_at_checked(length) else { return Ok(None) };
        let came = match kind {
            REQUEST => Request::decode(payload).map(|request| Came::Request { stream, request }),
            RESPONSE => {
                Response::decode(payload).map(|response| Came::Response { stream, response })
            }
            other => return Err(format!("a message of kind {other}")),
        };
        let came = came.map_err(|error| format!("a message that is none: {error}"))?;
        drop(self.0.drain(..length.saturating_add(HEADER)));
        // One large message does not hold its memory for ever.
        self.0.shrink_to(64 << 10);
        Ok(Some(came))
    }
}

#[cfg(test)]
mod tests {
    use super::{Assembler, Came, Request, Response, Status, request, response};
    use proptest::prelude::{any, proptest};
    use shim_model::limits;

    fn asked() -> Request {
        let payload = vec![1, 2, 3];
        Request { service: "s".into(), method: "m".into(), payload, timeout_nano: 5 }
    }

    fn answered() -> Response {
        let status = Status { code: 2, message: "no".into() };
        Response { status: Some(status), payload: vec![9] }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut bytes = request(1, &asked()).unwrap();
        bytes.extend(response(3, &answered()).unwrap());
        for size in 1..bytes.len() {
            let (mut assembler, mut found) = (Assembler::default(), Vec::new());
            for part in bytes.chunks(size) {
                assembler.feed(part);
                while let Some(came) = assembler.take().unwrap() {
                    found.push(came);
                }
            }
            let first = Came::Request { stream: 1, request: asked() };
            let second = Came::Response { stream: 3, response: answered() };
            assert_eq!(found, [first, second]);
        }
    }

    /// What a connection says to bytes that are no message.
    fn check(bytes: &[u8]) -> String {
        let mut assembler = Assembler::default();
        assembler.feed(bytes);
        assembler.take().unwrap_err()
    }

    #[test]
    fn what_is_no_message_ends_the_connection() {
        let too_long = u32::try_from(limits::NRI_MESSAGE_BYTES + 1).unwrap().to_be_bytes();
        let [a, b, c, d] = too_long;
        // Before a byte of it is kept.
        assert!(check(&[a, b, c, d, 0, 0, 0, 1, 2, 0]).contains("bytes"));
        assert!(check(&[0, 0, 0, 0, 0, 0, 0, 1, 3, 0]).contains("kind 3"));
        assert!(check(&[0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 255]).contains("none"));
        let huge = Request { payload: vec![0; limits::NRI_MESSAGE_BYTES], ..asked() };
        assert!(request(1, &huge).unwrap_err().contains("at most"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut assembler = Assembler::default();
            assembler.feed(&bytes);
            for _ in 0..20 {
                if !matches!(assembler.take(), Ok(Some(_))) {
                    break;
                }
            }
        }
    }
}
