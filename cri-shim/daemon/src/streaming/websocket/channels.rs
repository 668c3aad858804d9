//! Several streams in the messages of one WebSocket: the first byte of a message is its channel
//! (`cri-contract.md` 4.7). Pure. In the base64 forms channel and payload are text; since v5 the byte 255
//! ends a channel of the client's. What the channels are is known to whoever opened them.

use bytes::Bytes;
use data_encoding::BASE64;

/// The first byte of the message that ends a channel.
const CLOSE: u8 = 255;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Binary,
    Base64,
}

/// How a connection's messages are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) coding: Coding,
    /// Whether a client can end a channel.
    pub(crate) closes: bool,
}

/// What a client said in one message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Data { channel: u8, bytes: Bytes },
    End { channel: u8 },
    Nothing,
}

/// A message that no client of ours sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("a message that ends a channel has {0} bytes instead of 2")]
    Close(usize),
    #[error("a message is not base64")]
    Coding,
}

impl Framing {
    /// Reads a message.
    pub(crate) fn read(self, mut message: Bytes) -> Result<Said, BadMessage> {
        let Some(first) = message.first().copied() else { return Ok(Said::Nothing) };
        if self.closes && first == CLOSE {
            return match *message.as_ref() {
                [_, channel] => Ok(Said::End { channel }),
                _ => Err(BadMessage::Close(message.len())),
            };
        }
        let bytes = message.split_off(1);
        match self.coding {
            Coding::Binary => Ok(Said::Data { channel: first, bytes }),
            Coding::Base64 => {
                let bytes = BASE64.decode(&bytes).map_err(|_other| BadMessage::Coding)?;
                let channel = first.checked_sub(b'0').ok_or(BadMessage::Coding)?;
                Ok(Said::Data { channel, bytes: bytes.into() })
            }
        }
    }

    /// Writes a message: its octets, which are text in base64.
    pub(crate) fn write(self, channel: u8, bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(bytes.len().saturating_mul(4).div_ceil(3) + 4);
        match self.coding {
            Coding::Binary => {
                message.push(channel);
                message.extend_from_slice(bytes);
            }
            Coding::Base64 => {
                message.push(channel.wrapping_add(b'0'));
                message.extend_from_slice(BASE64.encode(bytes).as_bytes());
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::{BadMessage, Coding, Framing, Said};
    use bytes::Bytes;
    use proptest::prelude::*;

    const V4: Framing = Framing { coding: Coding::Binary, closes: false };
    const V5: Framing = Framing { coding: Coding::Binary, closes: true };
    const TEXT: Framing = Framing { coding: Coding::Base64, closes: false };

    fn check(framing: Framing, message: &'static [u8]) -> Result<Said, BadMessage> {
        framing.read(Bytes::from_static(message))
    }

    fn data(channel: u8, bytes: &'static [u8]) -> Said {
        Said::Data { channel, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn a_message_is_a_channel_and_its_bytes() {
        assert_eq!(check(V4, b"\x00ls\n"), Ok(data(0, b"ls\n")));
        assert_eq!(check(V4, b"\x04"), Ok(data(4, b"")));
        assert_eq!(check(V4, b""), Ok(Said::Nothing));
        assert_eq!(check(TEXT, b"0bHMK"), Ok(data(0, b"ls\n")));
        assert_eq!(check(TEXT, b"0"), Ok(data(0, b"")));
        assert_eq!(TEXT.write(1, b"ls\n"), b"1bHMK");
        assert_eq!(V4.write(1, b""), [1]);
    }

    #[test]
    fn only_v5_ends_a_channel() {
        assert_eq!(check(V5, b"\xff\x00"), Ok(Said::End { channel: 0 }));
        assert_eq!(check(V5, b"\xff"), Err(BadMessage::Close(1)));
        assert_eq!(check(V5, b"\xff\x00\x00"), Err(BadMessage::Close(3)));
        assert_eq!(check(V4, b"\xff\x00"), Ok(data(255, b"\x00")));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for message in [b"0bHM".as_slice(), b"0****", b"/bHMK", b"0bHMK\n"] {
            assert_eq!(check(TEXT, message), Err(BadMessage::Coding), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_back(channel in 0u8..200, bytes: Vec<u8>, text: bool) {
            let framing = if text { TEXT } else { V5 };
            let message = framing.write(channel, &bytes);
            prop_assert!(!text || channel > 75 || std::str::from_utf8(&message).is_ok());
            let read = framing.read(message.into());
            prop_assert_eq!(read, Ok(Said::Data { channel, bytes: bytes.into() }));
        }

        #[test]
        fn any_message_is_something_or_refused(message: Vec<u8>) {
            for framing in [V4, V5, TEXT] {
                drop(framing.read(message.clone().into()));
            }
        }
    }
}
