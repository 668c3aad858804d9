//! The command line as tests use it: run it and look at what it said, run it in the background and send
//! it signals, or see it refuse in the one sentence that a person gets. It runs in the space of the
//! daemon, with that daemon's socket.

use crate::cri::Said;
use crate::daemon::Daemon;
use crate::space::children;
use crate::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A command line that runs; its output goes to files.
#[derive(Debug)]
pub struct Begun {
    /// nsenter, which ends as the command does.
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// For names of output files.
static BEGUN: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    /// Runs the command line; what it said and how it ended.
    pub fn cli(&self, arguments: &[&str]) -> Said {
        said(self.command_line().args(arguments))
    }

    /// Likewise; it must succeed and complain about nothing. Its output without the last line end.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.cli(arguments);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{arguments:?}: {said:?}");
        said.stdout.strip_suffix('\n').unwrap_or(&said.stdout).to_owned()
    }

    /// Likewise; it must fail as wherry does, with one sentence and nothing else. The sentence.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let said = self.cli(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (125, ""), "{arguments:?}: {said:?}");
        sentence(&said.stderr)
    }

    /// Starts the command line and lets it run.
    pub fn begin(&self, arguments: &[&str]) -> Begun {
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        let file = |end: &str| self.beside(&format!("begun-{number}.{end}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let mut command = self.command_line();
        command.args(arguments);
        command.stdout(std::fs::File::create(&stdout).unwrap());
        command.stderr(std::fs::File::create(&stderr).unwrap());
        Begun { child: command.spawn().unwrap(), stdout, stderr }
    }
}

impl Begun {
    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    /// Waits until it has written this to standard output.
    pub fn says(&self, text: &str) {
        until(text, || self.stdout().contains(text).then_some(()));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let command = until("a command line", || children(self.child.id()).first().copied());
        kill(Pid::from_raw(command.try_into().unwrap()), signal).unwrap();
    }

    /// True if it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; what it said.
    pub fn end(mut self) -> Said {
        let status = until("an end of the command line", || self.child.try_wait().unwrap());
        let stderr = std::fs::read_to_string(&self.stderr).unwrap();
        Said { stdout: self.stdout(), stderr, code: code(status) }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            for command in children(self.child.id()) {
                let _gone_is_fine = crate::space::signal_kill(command);
            }
            drop(self.child.wait());
        }
    }
}

/// Runs a command to its end; what it said.
pub fn said(command: &mut Command) -> Said {
    let done = command.stdin(Stdio::null()).output().unwrap();
    Said {
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        code: code(done.status),
    }
}

/// The code as a shell tells it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// One line that begins with our name, ends without a full stop and is no panic; without the name.
pub fn sentence(text: &str) -> String {
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line end: {text:?}"));
    assert!(!line.contains('\n'), "more than one line: {text:?}");
    assert!(!line.contains("panicked") && !line.ends_with('.'), "no sentence of ours: {text:?}");
    line.strip_prefix("wherry: ").unwrap_or_else(|| panic!("not our name: {text:?}")).to_owned()
}
