//! What the kernel tells of processes and of the machine: private memory by `smaps_rollup`, resident
//! memory, names, memory that is left, load. Reads `/proc` and nothing else.

use anyhow::{Context, Result};
use std::fs;

/// What a process costs, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Pages that only it has, clean and dirty.
    pub(crate) private_kib: f64,
    /// Its share of all its pages: one that two processes have counts half for each.
    pub(crate) share_kib: f64,
}

/// `None` when it has ended.
pub(crate) fn cost(pid: u32) -> Option<Cost> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let of = |name: &str| field(&text, name).unwrap_or_default();
    let private_kib = of("Private_Clean:") + of("Private_Dirty:");
    Some(Cost { private_kib, share_kib: of("Pss:") })
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read a status")?;
    field(&text, "VmRSS:").context("a process with memory")
}

/// What the process does, for a person: its program's name. Wherry's monitors are forks of its zygote
/// and have its words; the daemon is not one of many.
pub(crate) fn role(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().filter(|word| !word.is_empty())?;
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let second = words.next().unwrap_or_default().into_owned();
    Some(match (program.as_str(), second.as_str()) {
        ("wherry", "zygote") => "monitor".to_owned(),
        ("wherry", role) => format!("wherry {role}"),
        _ => program,
    })
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
        let found = cost(own).unwrap();
        assert!(found.private_kib > 0.0 && found.share_kib >= found.private_kib);
        assert!(resident_kib(own).unwrap() > 0.0);
        assert!(role(own).unwrap().starts_with("wherry"));
        assert!(cost(u32::MAX).is_none());
    }
}
