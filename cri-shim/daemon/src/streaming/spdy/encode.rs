//! SPDY/3.1 frames as we write them (SPDY/3 §2.2, §2.6). Pure: octets go to a buffer of the caller's. What
//! clients write is read in `frame.rs`.

use super::frame::{CONTROL, GOAWAY, ID, PING, RST_STREAM, SYN_REPLY, VERSION, WINDOW_UPDATE};
use super::headers;
use bytes::{BufMut, BytesMut};
use shim_model::limits;

/// Why a stream ends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Its id or its headers cannot be.
    Protocol,
    /// It does not exist.
    NoStream,
    /// There are too many, or nobody wants it.
    Refused,
    /// Nobody needs it any more.
    Cancelled,
}

impl Because {
    const fn code(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::NoStream => 2,
            Self::Refused => 3,
            Self::Cancelled => 5,
        }
    }
}

/// The writing half of one connection's codec.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    replied: bool,
}

impl Encoder {
    /// Accepts a stream.
    pub(crate) fn reply(&mut self, stream: u32, out: &mut BytesMut) {
        let block = headers::empty_block(!self.replied);
        self.replied = true;
        control(SYN_REPLY, block.len().saturating_add(4), out);
        out.put_u32(stream);
        out.put_slice(block);
    }
}

/// The head of a data frame; its payload follows.
pub(crate) fn data(stream: u32, length: usize, fin: bool, out: &mut BytesMut) {
    out.put_u32(stream & ID);
    lengths(u8::from(fin), length, out);
}

/// Ends a stream at once.
pub(crate) fn reset(stream: u32, because: Because, out: &mut BytesMut) {
    control(RST_STREAM, 8, out);
    out.put_u32(stream);
    out.put_u32(because.code());
}

/// A question of ours, or the answer to one of the client's.
pub(crate) fn ping(id: u32, out: &mut BytesMut) {
    control(PING, 4, out);
    out.put_u32(id);
}

/// The last word: no stream after `last` was looked at.
pub(crate) fn go_away(last: u32, well: bool, out: &mut BytesMut) {
    control(GOAWAY, 8, out);
    out.put_u32(last);
    out.put_u32(u32::from(!well));
}

/// Gives room for so many more octets on a stream, or (0) on the connection.
pub(crate) fn window_update(stream: u32, octets: u32, out: &mut BytesMut) {
    control(WINDOW_UPDATE, 8, out);
    out.put_u32(stream);
    out.put_u32(octets);
}

fn control(kind: u16, length: usize, out: &mut BytesMut) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    lengths(0, length, out);
}

/// Flags and length; a payload of ours is never larger than a chunk.
fn lengths(flags: u8, length: usize, out: &mut BytesMut) {
    debug_assert!(length <= limits::STREAM_CHUNK_BYTES);
    let length = u32::try_from(length).unwrap_or_default() & 0x00ff_ffff;
    out.put_u32(u32::from(flags) << 24 | length);
}

#[cfg(test)]
mod tests {
    use super::Encoder;
    use bytes::BytesMut;

    #[test]
    fn our_frames_are_what_the_specification_says() {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::default();
        encoder.reply(1, &mut out);
        encoder.reply(3, &mut out);
        super::data(1, 5, false, &mut out);
        out.extend_from_slice(b"hello");
        super::data(1, 0, true, &mut out);
        super::reset(3, super::Because::Cancelled, &mut out);
        super::ping(2, &mut out);
        super::window_update(0, 65_536, &mut out);
        super::go_away(3, true, &mut out);
        let text: Vec<String> = out
            .chunks(16)
            .map(|line| {
                line.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ")
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        80 03 00 02 00 00 00 14 00 00 00 01 78 01 00 04
        00 fb ff 00 00 00 00 00 00 00 ff ff 80 03 00 02
        00 00 00 12 00 00 00 03 00 04 00 fb ff 00 00 00
        00 00 00 00 ff ff 00 00 00 01 00 00 00 05 68 65
        6c 6c 6f 00 00 00 01 01 00 00 00 80 03 00 03 00
        00 00 08 00 00 00 03 00 00 00 05 80 03 00 06 00
        00 00 04 00 00 00 02 80 03 00 09 00 00 00 08 00
        00 00 00 00 01 00 00 80 03 00 07 00 00 00 08 00
        00 00 03 00 00 00 00
        ");
    }
}
