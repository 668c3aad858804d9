//! SPDY/3.1 frames as a client writes them (SPDY/3 §2.2, §2.6). Pure: octets are fed however they are cut,
//! frames come out; a fuzzer can drive [`Decoder`] as it is. A control frame is held until it is whole and may not be
//! large; a data frame is handed out as it arrives, so its length costs nothing. After a refusal nothing
//! of the connection can be understood any more. Which frame may come when is not known here;
//! ours are written in `encode.rs`.

use super::headers::{BadHeaders, Headers, Inflater};
use bytes::{Buf, Bytes, BytesMut};
use shim_model::limits;

const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
pub(super) const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
pub(super) const PING: u16 = 6;
pub(super) const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
pub(super) const WINDOW_UPDATE: u16 = 9;

pub(super) const CONTROL: u32 = 0x8000_0000;
pub(super) const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Octets of a frame's head.
const HEAD: usize = 8;
pub(super) const ID: u32 = 0x7fff_ffff;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A stream begins; `fin` = the client sends nothing on it.
    SynStream { stream: u32, fin: bool, headers: Headers },
    /// A stream ends at once, both ways.
    Reset { stream: u32 },
    /// What the client would like; it knows about windows.
    Settings,
    /// A question (odd) or the answer to one of ours (even).
    Ping(u32),
    /// The client opens nothing any more.
    GoAway,
    /// More headers of a stream; only the end of the client's side in it counts.
    Headers { stream: u32, fin: bool },
    /// The client grants room; it knows about windows.
    WindowUpdate,
    /// A part of a data frame; `fin` = the client's side of the stream ends.
    Data { stream: u32, bytes: Bytes, fin: bool },
}

/// Octets that no client of ours sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("a control frame of SPDY version {0}")]
    Version(u16),
    #[error("a control frame of type {kind} with {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("a frame on stream 0")]
    StreamZero,
    #[error(transparent)]
    Headers(#[from] BadHeaders),
}

/// The reading half of one connection's codec.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    state: State,
    /// `None` = header blocks are skipped.
    inflater: Hearing,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Control {
        kind: u16,
        flags: u8,
        length: usize,
    },
    Data {
        stream: u32,
        fin: bool,
        left: usize,
    },
    Skip(usize),
}

#[derive(Debug)]
enum Hearing {
    Inflates(Inflater),
    Skips,
}

impl Default for Hearing {
    fn default() -> Self {
        Self::Inflates(Inflater::default())
    }
}

impl Decoder {
    /// Where the octets that arrive are put.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// From now on header blocks are skipped and new streams have none: whoever needs no more streams
    /// needs no inflater, which is most of what a quiet connection costs.
    pub(crate) fn skip_headers(&mut self) {
        self.inflater = Hearing::Skips;
    }

    /// The next frame, or `None` until more octets are there.
    pub(crate) fn frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = self.buffer.split_to_checked(HEAD) else { return Ok(None) };
                    self.state = begin(head)?;
                    if let State::Data { stream, fin, left: 0 } = self.state {
                        self.state = State::Head;
                        return Ok(Some(Frame::Data { stream, bytes: Bytes::new(), fin }));
                    }
                }
                State::Data { stream, fin, left } => return Ok(self.data(stream, fin, left)),
                State::Control { kind, flags, length } => {
                    let Some(body) = self.buffer.split_to_checked(length) else { return Ok(None) };
                    self.state = State::Head;
                    if let Some(frame) = self.control(kind, flags & FIN != 0, &body)? {
                        return Ok(Some(frame));
                    }
                }
                State::Skip(left) => {
                    let now = left.min(self.buffer.len());
                    self.buffer.advance(now);
                    if now < left {
                        self.state = State::Skip(left.saturating_sub(now));
                        return Ok(None);
                    }
                    self.state = State::Head;
                }
            }
        }
    }

    fn data(&mut self, stream: u32, fin: bool, left: usize) -> Option<Frame> {
        let now = left.min(self.buffer.len()).min(limits::STREAM_CHUNK_BYTES);
        if now == 0 {
            return None;
        }
        let bytes = self.buffer.split_to(now).freeze();
        let left = left.saturating_sub(now);
        self.state = if left == 0 { State::Head } else { State::Data { stream, fin, left } };
        Some(Frame::Data { stream, bytes, fin: fin && left == 0 })
    }

    fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> Result<Option<Frame>, BadFrame> {
        let short = |_| BadFrame::Length { kind, length: body.len() };
        let mut rest = body;
        let first = rest.try_get_u32().map_err(short)?;
        let stream = nonzero(first & ID);
        Ok(Some(match kind {
            SYN_STREAM => {
                // The associated stream, the priority and the slot mean nothing here.
                rest.try_get_u32().map_err(short)?;
                rest.try_get_u16().map_err(short)?;
                let headers = self.headers(rest)?;
                Frame::SynStream { stream: stream?, fin, headers }
            }
            SYN_REPLY => {
                // We open no stream. The block still counts: all blocks share one inflater.
                self.headers(rest)?;
                return Ok(None);
            }
            HEADERS => {
                self.headers(rest)?;
                Frame::Headers { stream: stream?, fin }
            }
            RST_STREAM if body.len() == 8 => Frame::Reset { stream: stream? },
            PING if body.len() == 4 => Frame::Ping(first),
            GOAWAY if body.len() == 8 => Frame::GoAway,
            WINDOW_UPDATE if body.len() == 8 => Frame::WindowUpdate,
            // The count is compared, nothing is kept: a count alone once cost gigabytes.
            SETTINGS if pairs(rest.len()) == Some(first) => Frame::Settings,
            _ => return Err(BadFrame::Length { kind, length: body.len() }),
        }))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, BadHeaders> {
        match &mut self.inflater {
            Hearing::Inflates(inflater) => inflater.block(block),
            Hearing::Skips => Ok(Headers::default()),
        }
    }
}

/// What a frame's head announces.
fn begin(mut head: BytesMut) -> Result<State, BadFrame> {
    let (first, second) = (head.get_u32(), head.get_u32());
    let [flags, a, b, c] = second.to_be_bytes();
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if first & CONTROL == 0 {
        let fin = flags & FIN != 0;
        return Ok(State::Data { stream: nonzero(first)?, fin, left: length });
    }
    let [version_high, version_low, kind_high, kind_low] = first.to_be_bytes();
    let version = u16::from_be_bytes([version_high & 0x7f, version_low]);
    let kind = u16::from_be_bytes([kind_high, kind_low]);
    match kind {
        _ if version != VERSION => Err(BadFrame::Version(version)),
        SYN_STREAM | SYN_REPLY | RST_STREAM | SETTINGS | PING | GOAWAY | HEADERS
        | WINDOW_UPDATE => {
            if length > limits::SPDY_CONTROL_BYTES {
                return Err(BadFrame::Length { kind, length });
            }
            Ok(State::Control { kind, flags, length })
        }
        // Types of other drafts are skipped, as the specification wants.
        _ => Ok(State::Skip(length)),
    }
}

const fn nonzero(stream: u32) -> Result<u32, BadFrame> {
    if stream == 0 { Err(BadFrame::StreamZero) } else { Ok(stream) }
}

/// How many settings of eight octets stand in so many.
fn pairs(octets: usize) -> Option<u32> {
    if octets.is_multiple_of(8) { u32::try_from(octets / 8).ok() } else { None }
}

trait SplitChecked {
    fn split_to_checked(&mut self, count: usize) -> Option<BytesMut>;
}

impl SplitChecked for BytesMut {
    fn split_to_checked(&mut self, count: usize) -> Option<BytesMut> {
        (self.len() >= count).then(|| self.split_to(count))
    }
}

// === what we say ===

#[cfg(test)]
pub(crate) mod tests {
    use super::{BadFrame, Decoder, Frame};
    use crate::streaming::spdy::headers::BadHeaders;
    use crate::streaming::spdy::headers::tests::Deflater;
    use bytes::Bytes;
    use proptest::prelude::*;
    use shim_model::limits;

    /// A control frame as a client writes it.
    pub(crate) fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut frame = vec![0x80, 3];
        frame.extend(kind.to_be_bytes());
        frame.extend([flags, length[1], length[2], length[3]]);
        frame.extend(body);
        frame
    }

    /// A data frame as a client writes it.
    pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend([flags, length[1], length[2], length[3]]);
        frame.extend(payload);
        frame
    }

    /// A new stream as a client writes it.
    pub(crate) fn syn(
        zlib: &mut Deflater,
        stream: u32,
        flags: u8,
        headers: &[(&str, &str)],
    ) -> Vec<u8> {
        let mut body = stream.to_be_bytes().to_vec();
        body.extend([0; 6]);
        body.extend(zlib.block(headers));
        control(1, flags, &body)
    }

    /// All frames of the octets, fed in pieces; neighbouring parts of one data frame are joined, since
    /// where they are cut means nothing.
    fn decode(octets: &[u8], piece: usize) -> Result<Vec<Frame>, BadFrame> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for piece in octets.chunks(piece.max(1)) {
            decoder.space().extend_from_slice(piece);
            while let Some(frame) = decoder.frame()? {
                join(&mut frames, frame);
            }
        }
        Ok(frames)
    }

    fn join(frames: &mut Vec<Frame>, frame: Frame) {
        if let (
            Some(Frame::Data { stream: old, bytes: have, fin: false }),
            Frame::Data { stream, bytes, fin },
        ) = (frames.last_mut(), &frame)
            && old == stream
        {
            let joined = Bytes::from([have.as_ref(), bytes.as_ref()].concat());
            *frames.last_mut().unwrap() = Frame::Data { stream: *stream, bytes: joined, fin: *fin };
            return;
        }
        frames.push(frame);
    }

    /// What a client could say in one connection.
    fn conversation() -> Vec<u8> {
        let zlib = &mut Deflater::new();
        [
            syn(zlib, 1, 0, &[("streamtype", "error")]),
            control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0]),
            syn(zlib, 3, 1, &[("streamtype", "stdin"), ("x", "")]),
            data(3, 0, b"hello"),
            control(6, 0, &[0, 0, 0, 1]),
            data(5, 0, &vec![7; 5_000]),
            data(3, 1, b""),
            control(9, 0, &[0, 0, 0, 3, 0, 0, 1, 0]),
            control(5, 0, &[1; 9]),
            control(8, 1, &[&[0, 0, 0, 5][..], &zlib.block(&[("a", "b")])].concat()),
            control(2, 0, &[&[0, 0, 0, 5][..], &zlib.block(&[])].concat()),
            syn(zlib, 7, 0, &[("streamtype", "error")]),
            control(3, 0, &[0, 0, 0, 5, 0, 0, 0, 5]),
            data(7, 1, b"bye"),
            control(7, 0, &[0; 8]),
        ]
        .concat()
    }

    #[test]
    fn a_conversation_may_be_cut_at_every_octet() {
        let octets = conversation();
        let whole = decode(&octets, octets.len()).unwrap();
        assert_eq!(whole.len(), 13);
        assert!(matches!(whole[1], Frame::Settings), "{:?}", whole[1]);
        assert_eq!(whole[4], Frame::Ping(1));
        assert_eq!(whole[5], Frame::Data { stream: 5, bytes: vec![7; 5_000].into(), fin: false });
        assert_eq!(whole[6], Frame::Data { stream: 3, bytes: Bytes::new(), fin: true });
        assert_eq!(whole[8], Frame::Headers { stream: 5, fin: true });
        let Frame::SynStream { stream: 7, fin: false, headers } = &whole[9] else {
            panic!("{:?}", whole[9])
        };
        assert_eq!(headers.get("streamtype"), Some("error"), "the inflater went along");
        for piece in 1..300 {
            assert_eq!(decode(&octets, piece).as_ref(), Ok(&whole), "{piece}");
        }
        for cut in 0..octets.len() {
            let part = decode(&octets[..cut], 4_096).unwrap();
            assert!(part.len() <= whole.len());
        }
    }

    #[test]
    fn a_large_data_frame_is_handed_out_as_it_comes() {
        let mut decoder = Decoder::default();
        let frame = data(1, 1, &vec![1; (1 << 24) - 1]);
        let mut total = 0;
        for piece in frame.chunks(10_000) {
            decoder.space().extend_from_slice(piece);
            while let Some(Frame::Data { bytes, fin, .. }) = decoder.frame().unwrap() {
                total += bytes.len();
                assert_eq!(fin, total == (1 << 24) - 1);
            }
            assert!(decoder.space().is_empty());
        }
        assert_eq!(total, (1 << 24) - 1);
    }

    #[test]
    fn a_control_frame_is_small() {
        let most = limits::SPDY_CONTROL_BYTES;
        let head = |length: usize| {
            let length = u32::try_from(length).unwrap().to_be_bytes();
            vec![0x80, 3, 0, 1, 0, length[1], length[2], length[3]]
        };
        assert_eq!(decode(&head(most), 8), Ok(Vec::new()));
        let refused = Err(BadFrame::Length { kind: 1, length: most + 1 });
        assert_eq!(decode(&head(most + 1), 8), refused);
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        let length = |kind, length| Err(BadFrame::Length { kind, length });
        for (octets, refusal) in [
            (vec![0x80, 2, 0, 1, 0, 0, 0, 0], Err(BadFrame::Version(2))),
            (data(0, 0, b"x"), Err(BadFrame::StreamZero)),
            (control(3, 0, &[0, 0, 0, 0, 0, 0, 0, 1]), Err(BadFrame::StreamZero)),
            (control(6, 0, b""), length(6, 0)),
            (control(6, 0, &[0; 5]), length(6, 5)),
            (control(3, 0, &[1; 4]), length(3, 4)),
            (control(7, 0, &[1; 9]), length(7, 9)),
            (control(9, 0, &[1; 7]), length(9, 7)),
            // A count of settings that are not there (CVE-2026-35469).
            (control(4, 0, &[0xff; 4]), length(4, 4)),
            (control(4, 0, &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1]), length(4, 12)),
            (control(1, 0, &[1; 9]), length(1, 9)),
            (control(1, 0, &[1; 10]), Err(BadHeaders::Short.into())),
            (control(8, 0, &[1; 40]), Err(BadHeaders::Corrupt.into())),
        ] {
            assert_eq!(decode(&octets, 3), refusal, "{octets:?}");
        }
    }

    #[test]
    fn a_header_bomb_stays_small() {
        let mut zlib = Deflater::new();
        let block = zlib.raw(&vec![0; 8 << 20]);
        assert!(block.len() < limits::SPDY_CONTROL_BYTES, "{}", block.len());
        let octets = control(1, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &block].concat());
        assert_eq!(decode(&octets, 999), Err(BadHeaders::TooLarge.into()));
    }

    #[test]
    fn skipped_headers_are_not_inflated() {
        let mut decoder = Decoder::default();
        decoder.skip_headers();
        decoder.space().extend_from_slice(&control(1, 0, &[&[0, 0, 0, 1][..], &[9; 90]].concat()));
        let Ok(Some(Frame::SynStream { headers, .. })) = decoder.frame() else { panic!() };
        assert_eq!(headers.get("streamtype"), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_frames_or_refused(octets: Vec<u8>, piece in 1usize..50) {
            let whole = decode(&octets, octets.len());
            prop_assert_eq!(decode(&octets, piece), whole);
        }

        #[test]
        fn a_broken_conversation_is_frames_or_refused(at: prop::sample::Index, octet: u8, piece in 1usize..5_000) {
            let mut octets = conversation();
            let at = at.index(octets.len());
            octets[at] = octet;
            let whole = decode(&octets, octets.len());
            prop_assert_eq!(decode(&octets, piece), whole);
        }

        #[test]
        fn known_heads_with_any_body_are_frames_or_refused(kind in 0u16..12, flags: u8, body: Vec<u8>) {
            let octets = control(kind, flags, &body);
            let whole = decode(&octets, octets.len());
            prop_assert_eq!(decode(&octets, 1), whole);
        }
    }
}
