//! What the kernel tells of processes and of the machine: private memory by `smaps_rollup`, resident
//! memory, names, memory that is left, load. Reads `/proc` and nothing else.

use anyhow::{Context, Result};
use std::fs;

/// Memory that only this process has, in KiB: clean and dirty. `None` when it has ended.
pub(crate) fn private_kib(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| field(&text, name).unwrap_or_default();
    Some(of("Private_Clean:") + of("Private_Dirty:"))
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read a status")?;
    field(&text, "VmRSS:").context("a process with memory")
}

/// What the process does, for a person: its program, and the role that Wherry's and Go's give it.
pub(crate) fn role(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().filter(|word| !word.is_empty())?;
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let second = words.next().unwrap_or_default().into_owned();
    Some(if program.starts_with("wherry") { format!("{program} {second}") } else { program })
}

/// Memory that programs could still get, in KiB.
pub(crate) fn available_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("read meminfo")?;
    field(&text, "MemAvailable:").context("MemAvailable in meminfo")
}

/// Load of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim_end().to_owned()
}

/// A number behind its name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Rss: 12 kB\nPrivate_Clean:   8 kB\nPrivate_Dirty:   40 kB\n";
        assert_eq!(field(text, "Private_Dirty:"), Some(40.0));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_role() {
        let own = std::process::id();
        assert!(private_kib(own).unwrap() > 0.0);
        assert!(resident_kib(own).unwrap() > 0.0);
        assert!(role(own).unwrap().starts_with("wherry"));
        assert_eq!(private_kib(u32::MAX), None);
    }
}
