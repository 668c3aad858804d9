//! What a run found, for people and for programs: one table in Markdown with sentences below it, and
//! JSON with every sample. Measures nothing.

use crate::board::{Board, Figures, Row, figures};
use crate::options::Options;
use crate::process;
use crate::runtime::Runtime;
use serde_json::{Value, json};
use std::fmt::Write;

/// What the numbers were taken on.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Load of the minute before.
    pub(crate) load: String,
    /// Programs and what they say of themselves.
    pub(crate) versions: Vec<(String, String)>,
}

/// The table and what stands below it.
pub(crate) fn table(board: &Board, options: &Options, machine: &Machine) -> String {
    let mut text = String::new();
    let done = write_table(&mut text, board, options);
    let done = done.and_then(|()| write_remarks(&mut text, board, machine));
    debug_assert!(done.is_ok(), "a String takes everything");
    text
}

fn write_table(text: &mut String, board: &Board, options: &Options) -> std::fmt::Result {
    write!(text, "| p50 / p90 / p99 (least–most) |")?;
    for runtime in &options.runtimes {
        write!(text, " {} |", runtime.title())?;
    }
    writeln!(text, "\n|---|{}", "---|".repeat(options.runtimes.len()))?;
    for row in &board.rows {
        let unit = row.subject.unit;
        let comma = if unit.is_empty() { "" } else { ", " };
        write!(text, "| {}{comma}{unit} |", row.subject.name)?;
        for runtime in &options.runtimes {
            write!(text, " {} |", cell(row, *runtime))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Few samples have no percentiles: then it is the median and how far they lie apart.
const FOR_PERCENTILES: usize = 9;

fn cell(row: &Row, runtime: Runtime) -> String {
    let Some(found) = row.figures(runtime) else { return "–".to_owned() };
    let mut parts = vec![format!("**{}**", digits(found.median))];
    if found.count >= FOR_PERCENTILES {
        parts.push(format!("/ {} / {}", digits(found.p90), digits(found.p99)));
    }
    if found.count > 1 {
        parts.push(format!("({}–{})", digits(found.least), digits(found.most)));
    }
    let ratio = row.ratio(runtime).filter(|_| runtime != Runtime::REFERENCE);
    parts.extend(ratio.map(|ratio| format!("{}×", digits(ratio))));
    parts.join(" ")
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn write_remarks(text: &mut String, board: &Board, machine: &Machine) -> std::fmt::Result {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    writeln!(
        text,
        "\n`N×`: so many times better than {}. Linux {}, {cores} cores, load {} before the run.",
        Runtime::REFERENCE.title(),
        process::kernel(),
        machine.load,
    )?;
    let versions: Vec<&str> = machine.versions.iter().map(|(_, said)| said.as_str()).collect();
    writeln!(text, "Versions: {}.", versions.join("; "))?;
    if let Some(noise) = figures(std::slice::from_ref(&board.noise)) {
        writeln!(
            text,
            "The machine by itself: a small program starts and ends in {} ms ({}–{}, p90 {}).",
            digits(noise.median),
            digits(noise.least),
            digits(noise.most),
            digits(noise.p90),
        )?;
    }
    for (runtime, roles) in &board.roles {
        let each = roles.iter().map(|(role, found)| {
            let middle = |values: Vec<f64>| crate::board::middle(&values).unwrap_or_default();
            let many = middle(found.iter().map(|(many, _)| *many).collect());
            let own = middle(found.iter().map(|(_, own)| *own).collect());
            format!("{} × {role} {} MB", digits(many), digits(own))
        });
        let each: Vec<String> = each.collect();
        writeln!(text, "A pod of {}, private memory: {}.", runtime.title(), each.join(", "))?;
    }
    for (runtime, calls) in &board.calls {
        let each = calls.programs.iter().map(|(name, many)| format!("{} × {name}", digits(*many)));
        let each: Vec<String> = each.collect();
        writeln!(text, "A pod start of {} executes {}.", runtime.title(), each.join(", "))?;
    }
    for remark in &board.remarks {
        writeln!(text, "FAILED: {remark}")?;
    }
    Ok(())
}

/// Everything, for a program.
pub(crate) fn json(board: &Board, options: &Options, machine: &Machine) -> Value {
    let versions = machine.versions.iter().map(|(name, said)| (name.clone(), json!(said)));
    json!({
        "kernel": process::kernel(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load_before": machine.load,
        "load_after": process::load(),
        "short": options.short,
        "versions": versions.collect::<serde_json::Map<_, _>>(),
        "noise_ms": board.noise,
        "rows": board.rows.iter().map(row).collect::<Vec<_>>(),
        "private_memory_mb": board.roles.iter().map(|(runtime, roles)| {
            (runtime.name().to_owned(), json!(roles))
        }).collect::<serde_json::Map<_, _>>(),
        "per_pod_start": board.calls.iter().map(|(runtime, found)| {
            let both = json!({"calls": found.calls, "programs": found.programs});
            (runtime.name().to_owned(), both)
        }).collect::<serde_json::Map<_, _>>(),
        "failures": board.remarks,
    })
}

fn row(row: &Row) -> Value {
    let cells = row.cells.iter().filter_map(|(runtime, samples)| {
        let found = row.figures(*runtime)?;
        Some((runtime.name().to_owned(), told(&found, row.ratio(*runtime), samples)))
    });
    json!({
        "subject": row.subject.name,
        "unit": row.subject.unit,
        "runtimes": cells.collect::<serde_json::Map<_, _>>(),
    })
}

fn told(found: &Figures, ratio: Option<f64>, samples: &[Vec<f64>]) -> Value {
    json!({
        "n": found.count, "p50": found.median, "p90": found.p90, "p99": found.p99,
        "min": found.least, "max": found.most, "round_p50": found.rounds,
        "times_better": ratio, "samples": samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::less;

    #[test]
    fn a_cell_shows_what_its_samples_allow() {
        let mut board = Board::default();
        let time = less("time", "ms");
        board.add(time, Runtime::REFERENCE, vec![200.0; 20]);
        board.add(time, Runtime::Wherry, (1..=10).map(f64::from).collect());
        board.add(time, Runtime::ContainerdCrun, vec![0.5, 1234.0]);
        let row = &board.rows[0];
        assert_eq!(cell(row, Runtime::REFERENCE), "**200** / 200 / 200 (200–200)");
        assert_eq!(cell(row, Runtime::Wherry), "**5.00** / 9.00 / 10.0 (1.00–10.0) 40.0×");
        assert_eq!(cell(row, Runtime::ContainerdCrun), "**0.50** (0.50–1234) 400×");
        assert_eq!(cell(row, Runtime::WherryPlugins), "–");
    }
}
