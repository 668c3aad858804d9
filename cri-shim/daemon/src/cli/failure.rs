//! Why a verb failed: one sentence with the way out, and Docker's exit code for it. The daemon's words are
//! taken as they are, but for what means nothing to a person at a terminal.

use super::say;
use std::io::ErrorKind;
use tonic::{Code, Status};

/// A failure of a verb.
#[derive(Debug)]
pub(crate) struct CliError {
    /// The sentence; empty where nothing is to be said.
    text: String,
    code: u8,
}

/// Wherry or the daemon failed.
const FAILED: u8 = 125;
/// The program is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
const NO_PROGRAM: u8 = 127;
/// Whoever read our output left: what `SIGPIPE` would have made of us.
const READER_LEFT: u8 = 128 + 13;

impl CliError {
    /// A failure of wherry or the daemon.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: FAILED }
    }

    /// A failure of the daemon at something that its own words do not name.
    pub(crate) fn at(doing: &str, status: &Status) -> Self {
        let way_out =
            if status.code() == Code::NotFound && status.message().contains("on this node") {
                "; \"wherry images\" lists what is here"
            } else {
                ""
            };
        Self::new(format!("{doing}: {}{way_out}", words(status)))
    }

    /// A program that could not be started.
    pub(crate) fn of_start(status: &Status) -> Self {
        let text = words(status);
        let Some((program, why)) = executed(text) else { return Self::new(text) };
        let (way_out, code) = if why.starts_with("No such file") {
            ("a program must be in the image, by its path or in its PATH", NO_PROGRAM)
        } else {
            ("it must be a program that its user may execute", NOT_EXECUTABLE)
        };
        Self { text: format!("execute {program}: {why}; {way_out}"), code }
    }

    /// Output that could not be written. A reader that left (`wherry logs web | head -1`) is no failure
    /// that anybody wants to read of.
    pub(crate) fn of_output(error: &std::io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            return Self { text: String::new(), code: READER_LEFT };
        }
        Self::new(format!("write the output: {error}"))
    }

    /// Tells a person; the exit code.
    pub(crate) fn tell(&self) -> u8 {
        if !self.text.is_empty() {
            say(&format!("wherry: {}", self.text));
        }
        self.code
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::new(words(&status))
    }
}

/// The daemon's words, without one that is for kubelets.
fn words(status: &Status) -> &str {
    let text = status.message();
    text.strip_prefix("RegistryUnavailable: ").unwrap_or(text)
}

/// Which program could not be executed, and why: `..: execve(PROGRAM): WHY (os error N)`.
fn executed(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once(": execve(")?;
    let (program, why) = rest.rsplit_once("): ")?;
    Some((program, why.split_once(" (os error").map_or(why, |(why, _)| why)))
}

#[cfg(test)]
mod tests {
    use super::CliError;
    use tonic::Status;

    fn of_start(text: &str) -> (String, u8) {
        let error = CliError::of_start(&Status::internal(text));
        (error.text, error.code)
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_told_with_dockers_code() {
        let text =
            "start container 0123: execve(/bin/a): b): No such file or directory (os error 2)";
        let (text, code) = of_start(text);
        assert!(text.starts_with("execute /bin/a): b: No such file or directory; "), "{text}");
        assert_eq!(code, 127);
        let (text, code) =
            of_start("start container 0123: execve(/www): Permission denied (os error 13)");
        assert!(text.starts_with("execute /www: Permission denied; "), "{text}");
        assert_eq!(code, 126);
        let other = "start container 0123: mount(/x): No such file or directory (os error 2)";
        assert_eq!(of_start(other), (other.to_owned(), 125));
    }
}
