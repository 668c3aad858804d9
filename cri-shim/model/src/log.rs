//! A container's output as CRI log records: `2026-01-31T23:59:59.123456789Z stdout F text` and a
//! newline, one record for each line, `P` instead of `F` for a piece with more to come
//! (`cri-contract.md` 1.4.4). Pure: bytes and time in, whole records out; who reads and writes is
//! `shim-child`. Bytes are kept as they are, NUL and broken UTF-8 included.

use crate::limits;

/// Which output a record is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// `stdout`.
    Standard,
    /// `stderr`.
    Error,
}

/// Length of a time stamp.
const STAMP: usize = 30;
/// Bytes of a record that are not content: time, stream, tag, three spaces, newline.
pub const RECORD_OVERHEAD: usize = STAMP + 1 + 6 + 1 + 1 + 1 + 1;

/// A time as RFC 3339 in UTC with nine digits: `2026-01-31T23:59:59.123456789Z`. Fixed width; years
/// 0000 to 9999, anything else is cut to the nearest of them.
pub fn stamp(nanos: i64) -> [u8; STAMP] {
    let (days, of_day) = (nanos.div_euclid(DAY), nanos.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let seconds = of_day / 1_000_000_000;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year.clamp(0, 9999)),
        (5, 2, month),
        (8, 2, day),
        (11, 2, seconds / 3600),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
        (20, 9, of_day % 1_000_000_000),
    ];
    for (at, width, value) in fields {
        digits(text.get_mut(at..at + width).unwrap_or_default(), value);
    }
    text
}

const DAY: i64 = 86_400 * 1_000_000_000;

fn digits(place: &mut [u8], mut value: i64) {
    for byte in place.iter_mut().rev() {
        *byte = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Days since 1970-01-01 as year, month, day of the proleptic Gregorian calendar. Counts from 1 March
/// of year 0, so that the leap day is the last of its year; 146097 days are 400 years.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + later, month, day)
}

/// Where whole records go, in batches.
pub trait Batch {
    /// Room for `length` more bytes, all records so far still whole: writes out what does not fit.
    fn room(&mut self, length: usize) -> &mut Vec<u8>;
}

/// Cuts one output into records. Keeps the beginning of an unfinished line, at most one fragment.
#[derive(Debug)]
pub struct Lines {
    output: Output,
    begun: Vec<u8>,
}

impl Lines {
    /// Nothing begun.
    pub const fn new(output: Output) -> Self {
        Self { output, begun: Vec::new() }
    }

    /// Takes what was read at `time`. A line is a record once its newline is there; a longer one than
    /// `limits::LOG_FRAGMENT_BYTES` is cut into partial records as soon as it is longer.
    pub fn feed(&mut self, time: &[u8; STAMP], mut input: &[u8], batch: &mut impl Batch) {
        while !input.is_empty() {
            let room = limits::LOG_FRAGMENT_BYTES.saturating_sub(self.begun.len());
            let window = input.get(..room.saturating_add(1)).unwrap_or(input);
            match memchr::memchr(b'\n', window) {
                Some(end) => {
                    let (line, rest) = input.split_at(end);
                    self.record(time, b'F', line, batch);
                    input = rest.get(1..).unwrap_or_default();
                }
                None if input.len() > room => {
                    let (piece, rest) = input.split_at(room);
                    self.record(time, b'P', piece, batch);
                    input = rest;
                }
                None => {
                    self.begun.extend_from_slice(input);
                    return;
                }
            }
        }
    }

    /// The output ended: what has no newline is a partial record.
    pub fn end(&mut self, time: &[u8; STAMP], batch: &mut impl Batch) {
        if !self.begun.is_empty() {
            self.record(time, b'P', &[], batch);
        }
    }

    fn record(&mut self, time: &[u8; STAMP], tag: u8, piece: &[u8], batch: &mut impl Batch) {
        let length = RECORD_OVERHEAD.saturating_add(self.begun.len()).saturating_add(piece.len());
        let text = batch.room(length);
        text.extend_from_slice(time);
        text.extend_from_slice(match self.output {
            Output::Standard => b" stdout ",
            Output::Error => b" stderr ",
        });
        text.extend_from_slice(&[tag, b' ']);
        text.extend_from_slice(&self.begun);
        text.extend_from_slice(piece);
        text.push(b'\n');
        // Given back, not only emptied: an idle container keeps no buffer.
        self.begun = Vec::new();
    }
}

/// How many bytes of a batch are whole records, if only the first `written` reached the file.
pub fn whole_records(batch: &[u8], written: usize) -> usize {
    let written = batch.get(..written).unwrap_or(batch);
    memchr::memrchr(b'\n', written).map_or(0, |end| end.saturating_add(1))
}

/// Bytes of output that these records hold, without what the format added.
pub fn content_bytes(records: &[u8]) -> usize {
    let count = memchr::memchr_iter(b'\n', records).count();
    records.len().saturating_sub(count.saturating_mul(RECORD_OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::{Batch, Lines, Output, RECORD_OVERHEAD, content_bytes, stamp, whole_records};
    use crate::limits::LOG_FRAGMENT_BYTES;

    impl Batch for Vec<u8> {
        fn room(&mut self, _length: usize) -> &mut Vec<u8> {
            self
        }
    }

    const TIME: [u8; 30] = *b"2026-01-31T23:59:59.123456789Z";

    fn logged(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::new(Output::Standard), Vec::new());
        for part in parts {
            lines.feed(&TIME, part, &mut out);
        }
        lines.end(&TIME, &mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        text.lines()
            .map(|line| {
                line.strip_prefix("2026-01-31T23:59:59.123456789Z stdout ").unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn stamps_are_rfc_3339_with_nine_digits() {
        let at = |nanos| String::from_utf8(stamp(nanos).to_vec()).unwrap();
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(at(1_769_903_999_123_456_789), "2026-01-31T23:59:59.123456789Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn lines_are_records_however_they_are_cut_when_read() {
        assert_eq!(logged(&[b"one\ntwo\n"]), ["F one", "F two"]);
        assert_eq!(logged(&[b"o", b"ne\nt", b"wo", b"\n"]), ["F one", "F two"]);
        assert_eq!(logged(&[b"\n\n"]), ["F ", "F "]);
        assert_eq!(logged(&[b"no newline"]), ["P no newline"]);
        assert_eq!(logged(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_line_of_just_one_fragment_is_whole_and_one_more_byte_is_cut() {
        let whole = [vec![b'x'; LOG_FRAGMENT_BYTES], vec![b'\n']].concat();
        assert_eq!(logged(&[&whole]).len(), 1);
        let longer = [vec![b'x'; LOG_FRAGMENT_BYTES + 1], vec![b'\n']].concat();
        let records = logged(&[&longer]);
        assert_eq!((&records[0][..3], records[0].len()), ("P x", LOG_FRAGMENT_BYTES + 2));
        assert_eq!(records[1], "F x");
        let (head, tail) = longer.split_at(7);
        assert_eq!(logged(&[head, tail]), records);
    }

    #[test]
    fn a_torn_batch_is_cut_to_whole_records_and_its_loss_is_content() {
        let (mut lines, mut out) = (Lines::new(Output::Error), Vec::new());
        lines.feed(&TIME, b"abc\ndefg\n", &mut out);
        let first = RECORD_OVERHEAD + 3;
        assert_eq!(whole_records(&out, first - 1), 0);
        assert_eq!(whole_records(&out, first + 5), first);
        assert_eq!(content_bytes(&out[first..]), 4);
    }
}
