//! Tables for people: columns as wide as their widest cell. Control characters never reach a terminal.

use super::failure::CliError;
use super::print;

/// Prints rows under a head.
pub(crate) fn show(head: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
    print(&lines(head, rows).join("\n"))
}

/// A text in one line, without control characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn lines(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut all: Vec<Vec<String>> = vec![head.iter().map(|text| (*text).to_owned()).collect()];
    all.extend(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()));
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    all.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        })
        .collect()
}

/// The beginning of a text that may be long.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago, in words.
pub(crate) fn ago(nanos: i64, now: i64) -> String {
    let seconds = now.saturating_sub(nanos).max(0) / 1_000_000_000;
    match seconds {
        0..=1 => "a moment".to_owned(),
        2..=119 => format!("{seconds} seconds"),
        120..=7_199 => format!("{} minutes", seconds / 60),
        7_200..=172_799 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in the unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0usize;
    let mut rest = bytes;
    let mut tenths = 0;
    while rest >= 1_000 && unit < 4 {
        tenths = (rest % 1_000) / 100;
        rest /= 1_000;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{rest} {name}") } else { format!("{rest}.{tenths} {name}") }
}

#[cfg(test)]
mod tests {
    use super::{ago, beginning, lines, size};

    #[test]
    fn columns_line_up_and_control_characters_are_gone() {
        let rows = vec![
            vec!["a\u{1b}[31m".to_owned(), "x".to_owned()],
            vec!["longer name".to_owned(), "y".to_owned()],
        ];
        assert_eq!(
            lines(&["NAME", "V"], &rows),
            ["NAME          V", "a?[31m        x", "longer name   y"]
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!([beginning("tail", 5), beginning("tail -f", 5)], ["tail", "tail…"]);
        assert_eq!(beginning("äöüäöü", 5), "äöüä…");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!([size(999), size(1_500), size(2_340_000_000)], ["999 B", "1.5 kB", "2.3 GB"]);
        assert_eq!(ago(0, 130_000_000_000), "2 minutes");
    }
}
