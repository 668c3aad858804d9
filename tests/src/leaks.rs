//! What a daemon has on the machine, counted before and after: mounts, network links, rules of the
//! firewall, cgroups, processes with their descriptors, leases, files. A test ends with
//! [`Leaks::assert_same_after`]; what is still there then has leaked. Waits for what is being taken away
//! beside the last answer.

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

    /// There is nothing that was not there before; else what there is, is the failure's text. Less is no
    /// leak: a daemon that was started again has fewer descriptors than one that worked for a while.
    pub fn assert_same_after(&self, daemon: &Daemon) {
        let end = Instant::now() + SETTLING;
        let mut left = self.left_in(&Self::count(daemon));
        while !left.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            left = self.left_in(&Self::count(daemon));
        }
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
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
        for line in space.shell("nft list ruleset").lines() {
            all.add(format!("rule {}", line.trim()));
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

    fn left_in(&self, now: &Self) -> Vec<String> {
        let before = |key: &String| self.counts.get(key).copied().unwrap_or_default();
        let more = now.counts.iter().filter(|(key, count)| **count > before(key));
        more.map(|(key, count)| format!("{} -> {count}: {key}", before(key))).collect()
    }
}

/// `socket:[123]` and `pipe:[45]` without their numbers.
fn kind_of(target: &Path) -> String {
    let text = target.to_string_lossy();
    text.split_once(":[").map_or(text.as_ref(), |(kind, _)| kind).to_owned()
}
