//! CRI log files, read back: `TIME STREAM TAG TEXT` per line, TAG `P` where the line goes on in the next
//! one of its stream. Refuses anything else, so that every test that reads a log checks its form.

use std::path::Path;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds, as it stands there.
    pub time: String,
    /// True for standard error.
    pub is_error: bool,
    /// True where the line goes on in the next record.
    pub is_partial: bool,
    /// What was said, without the line's end.
    pub text: String,
}

/// Every record of a log.
pub fn read(path: impl AsRef<Path>) -> Vec<Line> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&text)
}

/// What was said on standard output, without the records' own parts.
pub fn said(path: impl AsRef<Path>) -> String {
    let lines = read(path).into_iter().filter(|line| !line.is_error);
    let text = |line: Line| if line.is_partial { line.text } else { line.text + "\n" };
    lines.map(text).collect()
}

fn parse(text: &str) -> Vec<Line> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last record is not whole");
    let mut last = String::new();
    let lines = text.lines().map(|line| {
        let record = parse_line(line).unwrap_or_else(|| panic!("no CRI record: {line:?}"));
        assert!(record.time >= last, "time runs backwards at {line:?}");
        last.clone_from(&record.time);
        record
    });
    lines.collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut parts = line.splitn(4, ' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_error = match stream {
        "stdout" => false,
        "stderr" => true,
        _ => return None,
    };
    let is_partial = match tag {
        "F" => false,
        "P" => true,
        _ => return None,
    };
    let shape = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
    is_like(time, shape).then(|| Line {
        time: time.to_owned(),
        is_error,
        is_partial,
        text: text.to_owned(),
    })
}

/// Whether every character is the shape's, or a digit where the shape has a `d`.
fn is_like(text: &str, shape: &str) -> bool {
    let fits =
        |(c, wanted): (char, char)| if wanted == 'd' { c.is_ascii_digit() } else { c == wanted };
    text.len() == shape.len() && text.chars().zip(shape.chars()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::{Line, parse, parse_line};

    #[test]
    fn records_have_four_parts() {
        let line = parse_line("2026-01-02T03:04:05.000000006Z stderr P half a").unwrap();
        assert_eq!((line.is_error, line.is_partial, line.text.as_str()), (true, true, "half a"));
        for bad in [
            "2026-01-02T03:04:05Z stdout F x",
            "2026-01-02T03:04:05.000000006Z stdlog F x",
            "2026-01-02T03:04:05.000000006Z stdout X x",
            "2026-01-02T03:04:05.000000006Z stdout F",
        ] {
            assert_eq!(parse_line(bad), None, "{bad}");
        }
    }

    #[test]
    #[should_panic(expected = "time runs backwards")]
    fn time_runs_forwards() {
        let lines: Vec<Line> = parse(
            "2026-01-02T03:04:05.000000006Z stdout F a\n2026-01-02T03:04:05.000000005Z stdout F b\n",
        );
        drop(lines);
    }
}
