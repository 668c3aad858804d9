//! What a process weighs: memory and descriptors, as the kernel counts them. For tests that ask whether
//! something grows; nothing here says how much it may.

use crate::space::Space;

/// One process at one moment; memory in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Resident, shared pages included.
    pub resident: u64,
    /// Pages that nobody else has and no file: what it asked for. Pages of the program come and go.
    pub private: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Weight {
    /// Of a process, by its number in the space.
    pub fn of(space: &Space, pid: u32) -> Self {
        let count = |folder: &str| {
            let entries = std::fs::read_dir(space.path(format!("/proc/{pid}/{folder}")));
            entries.unwrap().count() as u64
        };
        let text =
            std::fs::read_to_string(space.path(format!("/proc/{pid}/smaps_rollup"))).unwrap();
        let kib = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            resident: kib("Rss"),
            private: kib("Private_Dirty"),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resident, private, descriptors, threads } = self;
        write!(f, "{resident} KiB ({private} private), {descriptors} fds, {threads} threads")
    }
}
