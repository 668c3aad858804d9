//! What a daemon has on the machine, counted before and after: mounts, network links, cgroups, processes
//! with their descriptors, leases, files. A test ends with [`Leaks::assert_same_after`]; what is still
//! there then has leaked. Waits for what is being taken away beside the last answer.

use crate::daemon::Daemon;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything that was there, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaks {
    /// How many there are of each thing; the key says its kind.
    counts: BTreeMap<String, u32>,
}

/// How long something may go on being taken away. It ends a test that fails, and fails none.
const SETTLING: Duration = Duration::from_secs(10);

/// Files that stay on purpose: marks and locks of address leases, which the CNI plugins keep too.
const KEPT: [&str; 2] = ["last_reserved_ip.0", "lock"];

impl Leaks {
    /// Counts. A client that is connected now must be connected at the end too.
    pub fn before(daemon: &Daemon) -> Self {
        let mut last = Self::count(daemon);
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = Self::count(daemon);
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// Everything is as it was; else the difference is the failure's text.
    pub fn assert_same_after(&self, daemon: &Daemon) {
        let end = Instant::now() + SETTLING;
        let mut now = Self::count(daemon);
        while now != *self && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            now = Self::count(daemon);
        }
        assert!(now == *self, "left behind (or lost):\n{}", self.difference(&now));
    }

    fn count(daemon: &Daemon) -> Self {
        let mut all = Self { counts: BTreeMap::new() };
        let space = daemon.space();
        for line in space.first_process("mountinfo").lines() {
            let mut words = line.split(' ');
            let (root, point) = (words.nth(3).unwrap_or_default(), words.next());
            all.add(format!("mount {} {root}", point.unwrap_or_default()));
        }
        for line in space.first_process("net/dev").lines().skip(2) {
            all.add(format!("link {}", line.split(':').next().unwrap_or_default().trim()));
        }
        for group in daemon.cgroups().groups() {
            all.add(format!("cgroup {}", group.display()));
        }
        for (pid, name) in space.processes() {
            all.add(format!("process {name}"));
            let descriptors = fs::read_dir(space.path(format!("/proc/{pid}/fd")));
            for descriptor in descriptors.into_iter().flatten().flatten() {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                all.add(format!("descriptor of {name}: {}", kind_of(&target)));
            }
        }
        for folder in [daemon.root(), daemon.state(), daemon.logs()] {
            all.add_files(&space.path(folder));
        }
        all
    }

    fn add(&mut self, key: String) {
        *self.counts.entry(key).or_default() += 1;
    }

    fn add_files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if KEPT.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            self.add(format!("file {}", entry.path().display()));
            // The content of an image is an image's, and is there or not with its folder.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !entry.path().to_string_lossy().contains("/layers/") {
                self.add_files(&entry.path());
            }
        }
    }

    fn difference(&self, now: &Self) -> String {
        let keys = self.counts.keys().chain(now.counts.keys());
        let of = |all: &Self, key: &String| all.counts.get(key).copied().unwrap_or_default();
        let mut lines: Vec<String> = keys
            .filter(|key| of(self, key) != of(now, key))
            .map(|key| format!("{} -> {}: {key}", of(self, key), of(now, key)))
            .collect();
        lines.sort();
        lines.dedup();
        lines.join("\n")
    }
}

/// `socket:[123]` and `pipe:[45]` without their numbers.
fn kind_of(target: &Path) -> String {
    let text = target.to_string_lossy();
    text.split_once(":[").map_or(text.as_ref(), |(kind, _)| kind).to_owned()
}
