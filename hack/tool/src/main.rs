//! `hack-tool`: development chores that outgrew a script. Each command has a file of its own; this one
//! only picks it. Runs from the repository's root and is never shipped.

#![forbid(unsafe_code)]

use hack_tool::{cluster, proto};
use std::path::Path;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a command line tool tells people what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *words {
        ["proto"] => proto::write(Path::new(".")),
        ["proto", "--check"] => proto::check(Path::new(".")),
        ["cluster", ..] => cluster::main(&arguments),
        _ => Err(anyhow::anyhow!("usage: hack-tool proto [--check] | cluster VERB")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}
