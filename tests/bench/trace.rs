//! System calls of a runtime, by strace attached to its processes while pods start; what they start is
//! followed. Counts lines of strace's text. Nothing that is traced is timed.

use crate::runtime::ADAPTER;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wherry_tests::until;

/// strace at work. Detaches when it is dropped.
#[derive(Debug)]
pub(crate) struct Trace {
    strace: Child,
}

/// What was seen.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// All calls by name.
    pub(crate) calls: BTreeMap<String, u32>,
    /// Programs that were executed, by their file's name.
    pub(crate) programs: BTreeMap<String, u32>,
}

impl Trace {
    /// Attaches to all threads of these processes and waits until that is done.
    pub(crate) fn attach(processes: &[u32], output: &Path) -> Result<Self> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-ttt", "-T", "-qq", "-e", "signal=none", "-s", "64", "-o"])
            .arg(output);
        for process in processes {
            command.args(["-p", &process.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let strace = command.spawn().context("start strace")?;
        let mut trace = Self { strace };
        let ended = until("strace at every process", || {
            let traced = processes.iter().all(|pid| is_traced(*pid).unwrap_or_default());
            let ended = trace.strace.try_wait().ok().flatten();
            (traced || ended.is_some()).then_some(ended)
        });
        ensure!(ended.is_none(), "strace ended: {ended:?}");
        Ok(trace)
    }

    /// Lets go of them and reads what was written.
    pub(crate) fn finish(mut self, output: &Path) -> Result<Counts> {
        self.end();
        let text = std::fs::read(output).context("read strace's output")?;
        Ok(count(&String::from_utf8_lossy(&text)))
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.strace.id()).unwrap_or(i32::MAX);
        if matches!(self.strace.try_wait(), Ok(None)) {
            // SIGINT makes it detach; SIGKILL would leave stopped processes behind.
            let interrupt = nix::sys::signal::Signal::SIGINT;
            let _gone_is_fine = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), interrupt);
            let end = Instant::now() + Duration::from_secs(20);
            while matches!(self.strace.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(self.strace.kill());
            drop(self.strace.wait());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.end();
    }
}

impl Counts {
    /// How often one of these was called.
    pub(crate) fn of(&self, names: &[&str]) -> u32 {
        names.iter().filter_map(|name| self.calls.get(*name)).sum()
    }

    /// All calls.
    pub(crate) fn all(&self) -> u32 {
        self.calls.values().sum()
    }

    /// Executed programs.
    pub(crate) fn executed(&self) -> u32 {
        self.programs.values().sum()
    }
}

/// Whether all threads of a process have a tracer; `None` when it has ended.
fn is_traced(pid: u32) -> Option<bool> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let texts = threads.filter_map(|at| std::fs::read_to_string(at.path().join("status")).ok());
    let texts: Vec<String> = texts.collect();
    Some(texts.iter().all(|text| !text.contains("TracerPid:\t0\n")))
}

/// Lines are `PID NAME(…) = RESULT`; a call that another thread interrupts in the text is
/// `PID NAME(… <unfinished ...>` and later `PID <... NAME resumed>…) = RESULT`.
fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = without_times(call.trim_start());
        if call.starts_with("<... execve resumed>") {
            let whole = begun.remove(pid).filter(|_| call.trim_end().ends_with("= 0"));
            counts.program(whole);
        }
        let name = call.split('(').next().unwrap_or_default();
        if !call.contains('(') || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        *counts.calls.entry(name.to_owned()).or_default() += 1;
        match name {
            "execve" if call.ends_with("<unfinished ...>") => {
                begun.insert(pid, call);
            }
            "execve" if call.trim_end().ends_with("= 0") => counts.program(Some(call)),
            _ => {}
        }
    }
    counts
}

/// `TIME CALL(…) = RESULT <DURATION>` → `CALL(…) = RESULT`.
fn without_times(call: &str) -> &str {
    let start = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let call = call.split_once(' ').filter(|(time, _)| start(time)).map_or(call, |(_, call)| call);
    let end = call.rsplit_once(" <").filter(|(_, duration)| start(duration));
    end.map_or(call, |(call, _)| call)
}

impl Counts {
    /// `execve("/bin/true", …` → `true`. A program that executes a sealed copy of itself
    /// (`/proc/self/fd/6`) is named by its first word. What only adapts a peer to this comparison is not
    /// the peer's.
    fn program(&mut self, call: Option<&str>) {
        let mut words = call.into_iter().flat_map(|call| call.split('"').skip(1).step_by(2));
        let (path, word) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = if path.starts_with("/proc/") { word } else { path };
        let name = path.rsplit('/').next().unwrap_or_default();
        if !name.is_empty() && name != ADAPTER {
            *self.programs.entry(name.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_programs_are_counted_once() {
        let text = "\
100 1764.123456 openat(AT_FDCWD, \"/etc/a(b\", O_RDONLY) = 3 <0.000012>
100   execve(\"/usr/bin/runc\", [\"runc\"], 0x1 /* 3 vars */ <unfinished ...>
101 fdatasync(7 <unfinished ...>
100 1764.3 <... execve resumed>)            = 0 <0.000500>
101 <... fdatasync resumed>)         = 0
102 execve(\"/no/runc\", [\"runc\"], 0x1 /* 3 vars */) = -1 ENOENT (No such file or directory)
102 1764.2 execve(\"/bin/true\", [\"true\"], 0x1 /* 3 vars */) = 0 <0.000400>
102 +++ exited with 0 +++
103 execve(\"/cache/crun-adapter\", [\"crun\"], 0x1 /* 3 vars */) = 0
103 execve(\"/proc/self/fd/6\", [\"runc\", \"init\"], 0x1 /* 3 vars */) = 0
";
        let counts = count(text);
        let calls = [("execve", 5), ("fdatasync", 1), ("openat", 1)];
        let programs = [("runc", 2), ("true", 1)];
        assert_eq!(counts.calls, calls.map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!(counts.programs, programs.map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!(
            (counts.of(&["fsync", "fdatasync"]), counts.all(), counts.executed()),
            (1, 7, 3)
        );
    }
}
