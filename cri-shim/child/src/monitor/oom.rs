//! Out-of-memory kills of a container's group, by the kernel's counter. Read at the start and at the
//! end; only the first process's death counts as the container's.

use shim_sys::fd;
use std::os::fd::OwnedFd;

/// SIGKILL as an exit code.
const KILLED: i32 = 137;

/// The line `oom_kill N` of `memory.events` (v2) or `memory.oom_control` (v1, Linux 4.13); 0 where
/// there is none.
pub(crate) fn count(file: Option<&OwnedFd>) -> u64 {
    let mut buffer = [0_u8; 1024];
    let text = file.and_then(|file| fd::read_start(file, &mut buffer).ok()).unwrap_or_default();
    parse(text)
}

/// True if a first process that ended with `code` was killed for memory, as far as can be known: it
/// died by SIGKILL and the counter grew.
pub(crate) const fn killed(code: i32, before: u64, after: u64) -> bool {
    code == KILLED && after > before
}

fn parse(text: &[u8]) -> u64 {
    let mut lines = text.split(|byte| *byte == b'\n');
    let count = lines.find_map(|line| line.strip_prefix(b"oom_kill "));
    count.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{killed, parse};

    #[test]
    fn both_versions_of_the_counter_are_read() {
        assert_eq!(parse(b"low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(parse(b"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7);
        assert_eq!(parse(b""), 0);
    }

    #[test]
    fn only_a_killed_first_process_died_of_it() {
        assert!(killed(137, 0, 1));
        assert!(!killed(137, 1, 1) && !killed(1, 0, 1));
    }
}
