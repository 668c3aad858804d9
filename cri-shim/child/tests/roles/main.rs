//! The roles for real: a zygote, monitors, containers of busybox. Needs root and a busybox that is
//! linked statically. This program is its own zygote, so it has a `main` of its own instead of the
//! usual test harness; it understands `--list`, `--exact` and a part of a name, as that does.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test program fails by panic and tells what it does"
)]

mod attach;
mod client;
mod execs;
mod life;
mod logs;
mod mounts;
mod pods;
mod terminals;
mod versions;

use shim_sys::process::{self, Ended};
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|role| role == "zygote") {
        return shim_child::zygote_main();
    }
    let tests: Vec<Test> = [
        life::TESTS,
        logs::TESTS,
        execs::TESTS,
        attach::TESTS,
        terminals::TESTS,
        pods::TESTS,
        mounts::TESTS,
        versions::TESTS,
    ]
    .concat();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            for (name, _) in tests {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let wanted: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let chosen = |name: &str| {
        wanted.is_empty()
            || wanted.iter().any(|part| if exact { name == *part } else { name.contains(*part) })
    };
    run(tests.into_iter().filter(|(name, _)| chosen(name)))
}

fn run(tests: impl Iterator<Item = Test>) -> ExitCode {
    if let Some(reason) = client::missing() {
        eprintln!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    // Monitors whose zygote is gone become children of this process, which reaps them at its end.
    shim_sys::credentials::become_subreaper().unwrap();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        match std::panic::catch_unwind(test) {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
        println!("test {name} ... done");
    }
    while let Ok(Ended::Child(pid)) = process::ended_child(false) {
        process::reap_number(pid).unwrap();
    }
    println!("test result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
