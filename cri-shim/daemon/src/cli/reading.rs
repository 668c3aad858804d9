//! A CRI log file, back as the container said it: both streams, the last lines, times. Follows a file that
//! is renamed and made anew. Knows nothing of the daemon; when a container has ended, its caller knows.

use super::failure::CliError;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How much of a log's end is looked at first for its last lines; four times as much each time that is
/// not enough.
const WINDOW: u64 = 64 << 10;

/// What is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Show {
    /// Only the last lines.
    pub(crate) tail: Option<usize>,
    /// With the time before each line.
    pub(crate) timestamps: bool,
    /// Bytes of standard output and standard error that were shown already.
    pub(crate) shown: [u64; 2],
}

/// A log that is read.
#[derive(Debug)]
pub(crate) struct Reading {
    path: String,
    file: BufReader<File>,
    inode: u64,
    show: Show,
    /// A record that is not whole yet.
    rest: Vec<u8>,
    /// Of standard output and standard error: the last record did not end its line.
    within: [bool; 2],
}

/// One record: `TIME STREAM TAG CONTENT`.
struct Record<'a> {
    time: &'a [u8],
    is_error: bool,
    /// It does not end its line; its own line end is the log's, not the container's.
    is_partial: bool,
    content: &'a [u8],
}

impl Reading {
    /// Opens a log where its last lines begin, or at its start.
    pub(crate) fn open(path: &str, show: Show) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::new(format!("read the log {path}: {error}"));
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let inode = file.get_ref().metadata().map_err(failed)?.ino();
        if let Some(lines) = show.tail {
            let at = last_lines(&mut file, lines).map_err(failed)?;
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
        }
        let (rest, within) = (Vec::new(), [false; 2]);
        Ok(Self { path: path.to_owned(), file, inode, show, rest, within })
    }

    /// Prints what is new; false if there was nothing.
    pub(crate) fn print_new(&mut self) -> Result<bool, CliError> {
        let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
        let mut printed = false;
        loop {
            let read = self.file.read_until(b'\n', &mut self.rest);
            read.map_err(|error| CliError::new(format!("read the log {}: {error}", self.path)))?;
            if !self.rest.ends_with(b"\n") {
                break;
            }
            let (is_error, text) = self.shown();
            let to: &mut dyn Write = if is_error { &mut stderr } else { &mut stdout };
            let shown = self.show.shown.get_mut(usize::from(is_error));
            let text = shown.map_or(text.as_slice(), |shown| not_shown(&text, shown));
            to.write_all(text).map_err(|error| CliError::of_output(&error))?;
            self.rest.clear();
            printed = true;
        }
        stdout.flush().map_err(|error| CliError::of_output(&error))?;
        if !printed && Path::new(&self.path).metadata().is_ok_and(|now| now.ino() != self.inode) {
            let within = self.within;
            *self = Self::open(&self.path, Show { tail: None, ..self.show })?;
            self.within = within;
            return Ok(true);
        }
        Ok(printed)
    }

    /// The record that is whole now, as it was said: whether to standard error, and its bytes.
    fn shown(&mut self) -> (bool, Vec<u8>) {
        let Some(record) = parse(&self.rest) else { return (false, self.rest.clone()) };
        let Some(within) = self.within.get_mut(usize::from(record.is_error)) else {
            return (false, Vec::new());
        };
        let begins_line = !std::mem::replace(within, record.is_partial);
        let time: &[u8] = if self.show.timestamps && begins_line { record.time } else { &[] };
        let space: &[u8] = if time.is_empty() { &[] } else { b" " };
        (record.is_error, [time, space, record.content].concat())
    }
}

/// What of a text was not shown yet; `shown` bytes of this and what follows were.
fn not_shown<'a>(text: &'a [u8], shown: &mut u64) -> &'a [u8] {
    let known = usize::try_from(*shown).unwrap_or(usize::MAX).min(text.len());
    *shown = shown.saturating_sub(u64::try_from(known).unwrap_or(u64::MAX));
    text.get(known..).unwrap_or_default()
}

fn parse(record: &[u8]) -> Option<Record<'_>> {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_partial = tag == b"P";
    let content = if is_partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    Some(Record { time, is_error: stream == b"stderr", is_partial, content })
}

/// Where the last lines of a log begin. A line is what the container ended with a line end, however many
/// records it takes, or what it said last.
fn last_lines(file: &mut (impl BufRead + Seek), lines: usize) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut window = WINDOW;
    loop {
        let from = end.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let starts = starts(file, from, lines)?;
        match starts.front() {
            // One more than was asked for: the oldest is known to be a start.
            Some(_) if starts.len() > lines => return Ok(starts.get(1).copied().unwrap_or(end)),
            _ if from == 0 => return Ok(if lines == 0 { end } else { 0 }),
            Some(_) | None => window = window.saturating_mul(4),
        }
    }
}

/// Where the last `lines` lines after `from` and the one before them begin, as far as they are there, and
/// the end if a line has ended there. A first record that begins before `from` is left out.
fn starts(file: &mut impl BufRead, from: u64, lines: usize) -> std::io::Result<VecDeque<u64>> {
    let mut starts = VecDeque::new();
    let (mut at, mut is_whole, mut record) = (from, from == 0, Vec::new());
    let mut line_begins = is_whole;
    while file.read_until(b'\n', &mut record)? > 0 && record.ends_with(b"\n") {
        if line_begins {
            starts.push_back(at);
        }
        if starts.len() > lines.saturating_add(1) {
            starts.pop_front();
        }
        at = at.saturating_add(record.len() as u64);
        line_begins = is_whole && parse(&record).is_none_or(|record| !record.is_partial);
        is_whole = true;
        record.clear();
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::{last_lines, not_shown, parse};
    use std::io::Cursor;

    fn tail(text: &str, lines: usize) -> &str {
        let at = last_lines(&mut Cursor::new(text.as_bytes()), lines).unwrap();
        &text[usize::try_from(at).unwrap()..]
    }

    #[test]
    fn records_come_back_as_they_were_said() {
        let record = parse(b"2026-01-01T00:00:00.0Z stdout F hello world\n").unwrap();
        assert_eq!((record.is_error, record.is_partial), (false, false));
        assert_eq!(
            (record.time, record.content),
            (&b"2026-01-01T00:00:00.0Z"[..], &b"hello world\n"[..])
        );
        let record = parse(b"T stderr P part\n").unwrap();
        assert_eq!(
            (record.is_error, record.is_partial, record.content),
            (true, true, &b"part"[..])
        );
        assert_eq!(parse(b"T stdout F \n").unwrap().content, b"\n");
        assert!(parse(b"nonsense\n").is_none());
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut shown = 5;
        assert_eq!(not_shown(b"abc", &mut shown), b"");
        assert_eq!(not_shown(b"defg", &mut shown), b"fg");
        assert_eq!(not_shown(b"h", &mut shown), b"h");
    }

    #[test]
    fn the_last_lines_are_the_containers() {
        let log = "T stdout F a\nT stdout P b1\nT stdout F b2\nT stderr F c\n";
        assert_eq!(tail(log, 0), "");
        assert_eq!(tail(log, 1), "T stderr F c\n");
        assert_eq!(tail(log, 2), "T stdout P b1\nT stdout F b2\nT stderr F c\n");
        assert_eq!([tail(log, 3), tail(log, 4), tail(log, 1000)], [log; 3]);
        assert_eq!([tail("", 0), tail("", 3)], [""; 2]);
        // What was said last need not have an end.
        let log = "T stdout F a\nT stdout P b\n";
        assert_eq!(tail(log, 1), "T stdout P b\n");
        assert_eq!(tail(log, 0), "");
    }

    #[test]
    fn lines_are_found_in_a_log_of_any_length() {
        let lines: Vec<String> = (0..9000).map(|n| format!("TIME stdout F line {n}\n")).collect();
        let log = lines.concat();
        for count in [0, 1, 2, 2000, 3000, 8999, 9000, 9001] {
            let first = lines.len().saturating_sub(count);
            assert!(tail(&log, count) == lines[first..].concat(), "{count}");
        }
        let long = format!("T stdout P {}\n", "x".repeat(16_384)).repeat(9) + "T stdout F end\n";
        let log = format!("T stdout F a\n{long}T stdout F b\n");
        assert!(tail(&log, 2) == format!("{long}T stdout F b\n"));
        assert!(tail(&log, 3) == log);
    }
}
