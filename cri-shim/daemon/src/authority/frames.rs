//! Finds the header blocks in what an HTTP/2 client sends (RFC 9113 §4.1, §6.2, §6.10), however the
//! octets are cut. Owns the octets of one block until it is complete, bounded; holds back nothing else.
//! Relies on being fed from the first octet of the connection on.

use super::fields;
use shim_model::limits;
use std::ops::Range;

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Octets of a frame header.
const HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Rewrites one direction of one connection.
#[derive(Debug)]
pub(crate) struct Rewriter {
    state: State,
    /// The frame header being read, or the one of the frame being collected.
    head: Vec<u8>,
    /// The payload being collected.
    payload: Vec<u8>,
    /// Whole frames of the header block under way.
    held: Vec<u8>,
    /// Where in `held` the block's fragments are; not empty = a block is under way.
    fragments: Vec<Range<usize>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many octets pass as they are, then a frame begins.
    Pass(usize),
    /// Reading a frame header.
    Head,
    /// Collecting a payload; so many octets are missing.
    Collect(usize),
    /// Nothing is understood any more: everything passes.
    Blind,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self {
            state: State::Pass(PREFACE),
            head: Vec::new(),
            payload: Vec::new(),
            held: Vec::new(),
            fragments: Vec::new(),
        }
    }
}

impl Rewriter {
    /// Takes what the client sent and appends what the server should see.
    pub(crate) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let wanted = match self.state {
                State::Pass(left) | State::Collect(left) => left,
                State::Head => HEAD.saturating_sub(self.head.len()),
                State::Blind => input.len(),
            };
            let (now, rest) = input.split_at(wanted.min(input.len()));
            self.step(now, out);
            input = rest;
        }
    }

    fn step(&mut self, now: &[u8], out: &mut Vec<u8>) {
        match self.state {
            State::Pass(left) => {
                out.extend_from_slice(now);
                let left = left.saturating_sub(now.len());
                self.state = if left == 0 { State::Head } else { State::Pass(left) };
            }
            State::Head => {
                self.head.extend_from_slice(now);
                self.head_read(out);
            }
            State::Collect(missing) => {
                self.payload.extend_from_slice(now);
                self.state = State::Collect(missing.saturating_sub(now.len()));
                self.payload_read(out);
            }
            State::Blind => out.extend_from_slice(now),
        }
    }

    /// Decides by a complete frame header what happens to its payload.
    fn head_read(&mut self, out: &mut Vec<u8>) {
        let &[a, b, c, kind, ..] = self.head.as_slice() else { return };
        if self.head.len() < HEAD {
            return;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let under_way = !self.fragments.is_empty();
        let of_block = kind == if under_way { CONTINUATION } else { HEADERS };
        let fits = self.held.len().saturating_add(length) <= limits::HEADER_BLOCK_BYTES;
        if of_block && fits {
            self.state = State::Collect(length);
            self.payload_read(out);
        } else if of_block || under_way {
            // Too large, or a foreign frame within a block: the library refuses both.
            self.give_up(out);
        } else {
            out.append(&mut self.head);
            self.state = if length == 0 { State::Head } else { State::Pass(length) };
        }
    }

    /// Once a payload is complete: notes its fragment, and rewrites after the last frame of a block.
    fn payload_read(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Collect(0)) {
            return;
        }
        let &[_, _, _, kind, flags, ..] = self.head.as_slice() else { return };
        let Some(fragment) = fragment(kind, flags, &self.payload) else {
            return self.give_up(out);
        };
        let start = self.held.len().saturating_add(HEAD);
        self.held.append(&mut self.head);
        self.held.append(&mut self.payload);
        self.fragments
            .push(start.saturating_add(fragment.start)..start.saturating_add(fragment.end));
        if flags & END_HEADERS != 0 {
            self.rewrite();
            out.append(&mut self.held);
            self.fragments.clear();
        }
        self.state = State::Head;
    }

    /// Overwrites `:authority` in the complete block and puts the block back into its frames.
    fn rewrite(&mut self) {
        let parts = self.fragments.iter().filter_map(|range| self.held.get(range.clone()));
        let mut block: Vec<u8> = parts.flatten().copied().collect();
        if !fields::overwrite_authority(&mut block) {
            return;
        }
        let mut from = block.as_slice();
        for range in &self.fragments {
            if let Some(into) = self.held.get_mut(range.clone())
                && let Some((now, rest)) = from.split_at_checked(into.len())
            {
                into.copy_from_slice(now);
                from = rest;
            }
        }
    }

    /// Lets go of everything that was held, and looks at nothing any more.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        out.append(&mut self.head);
        out.append(&mut self.payload);
        self.fragments.clear();
        self.state = State::Blind;
    }
}

/// The header block fragment in a payload, without padding and priority. `None` = malformed.
fn fragment(kind: u8, flags: u8, payload: &[u8]) -> Option<Range<usize>> {
    let mut start = 0usize;
    let mut end = payload.len();
    if kind == HEADERS && flags & PADDED != 0 {
        start = 1;
        end = end.checked_sub(usize::from(*payload.first()?))?;
    }
    if kind == HEADERS && flags & PRIORITY != 0 {
        start = start.saturating_add(5);
    }
    (start <= end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::{
        CONTINUATION, END_HEADERS, HEADERS, PADDED, PRIORITY, Rewriter, fields::tests::literal,
    };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    /// Feeds the octets whole, in ones and in sevens; all must give the same.
    fn rewritten(input: &[u8]) -> Vec<u8> {
        let through = |size: usize| {
            let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
            input.chunks(size).for_each(|chunk| rewriter.feed(chunk, &mut out));
            out
        };
        let whole = through(input.len().max(1));
        assert_eq!(whole, through(1));
        assert_eq!(whole, through(7));
        assert_eq!(whole.len(), input.len());
        whole
    }

    #[test]
    fn a_socket_path_becomes_a_legal_authority() {
        let block = literal(1, b"/run/wherry/wherry.sock");
        let input = [preface(), frame(HEADERS, END_HEADERS, &block)].concat();
        let expected =
            [preface(), frame(HEADERS, END_HEADERS, &literal(1, b"00000000000000000000000"))]
                .concat();
        assert_eq!(rewritten(&input), expected);
    }

    #[test]
    fn padding_and_priority_stay_where_they_are() {
        let block = literal(1, b"%2Frun%2Fa.sock");
        let payload = [vec![3u8, 0, 0, 0, 0, 16], block, vec![0x41, 1, b'/']].concat();
        let wanted =
            [vec![3u8, 0, 0, 0, 0, 16], literal(1, b"000000000000000"), vec![0x41, 1, b'/']];
        let flags = END_HEADERS | PADDED | PRIORITY;
        let input = [preface(), frame(HEADERS, flags, &payload)].concat();
        assert_eq!(
            rewritten(&input),
            [preface(), frame(HEADERS, flags, &wanted.concat())].concat()
        );
    }

    #[test]
    fn a_value_cut_by_continuations_is_found() {
        let block = literal(1, b"/run/x.sock");
        let cut = [
            frame(HEADERS, 0, &block[..4]),
            frame(CONTINUATION, 0, &block[4..5]),
            frame(CONTINUATION, 0, b""),
            frame(CONTINUATION, END_HEADERS, &block[5..]),
        ];
        let zeros = literal(1, b"00000000000");
        let wanted = [
            frame(HEADERS, 0, &zeros[..4]),
            frame(CONTINUATION, 0, &zeros[4..5]),
            frame(CONTINUATION, 0, b""),
            frame(CONTINUATION, END_HEADERS, &zeros[5..]),
        ];
        let data = frame(0, 0, b"data");
        let input = [preface(), data.clone(), cut.concat(), data.clone()].concat();
        assert_eq!(rewritten(&input), [preface(), data.clone(), wanted.concat(), data].concat());
    }

    #[test]
    fn what_is_malformed_passes_unchanged() {
        let block = literal(1, b"/run/x.sock");
        let hostile = [
            // Padding longer than the frame.
            frame(HEADERS, END_HEADERS | PADDED, &[200, 0x41, 1, b'/']),
            // A foreign frame within a block.
            [frame(HEADERS, 0, &block), frame(0, 0, b"x")].concat(),
            // A block that is too large, and one that never ends.
            frame(HEADERS, END_HEADERS, &vec![0u8; 100_000]),
            frame(HEADERS, 0, &block),
        ];
        for frames in hostile {
            let input = [preface(), frames].concat();
            let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
            rewriter.feed(&input, &mut out);
            assert!(input.starts_with(&out));
        }
    }
}
