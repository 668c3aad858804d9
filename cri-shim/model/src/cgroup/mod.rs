//! Cgroups as decisions: limits to writes, file texts to numbers, names. The two versions differ in
//! file names and arithmetic, not in behaviour, so both answer the same trait; one loop in
//! `shim-runtime` performs the writes.

pub mod counters;
pub mod devices;
pub mod driver;
pub mod stats;
pub mod v1;
pub mod v2;

use crate::resources::Resources;
use counters::Counters;
use stats::Stats;

/// One write to a cgroup file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Controller whose hierarchy holds the file (v1); on v2 it only says what the file is about.
    pub controller: &'static str,
    /// File name.
    pub file: String,
    /// What is written.
    pub text: String,
    /// A missing file is no failure: the value is the kernel's default where it is missing.
    pub optional: bool,
}

impl Write {
    fn new(
        controller: &'static str,
        file: impl Into<String>,
        text: impl std::fmt::Display,
    ) -> Self {
        let text = format!("{text}");
        Self { controller, file: file.into(), text, optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// One cgroup version.
pub trait Version {
    /// The writes that put limits in force, in an order that cannot fail half-way on a new group.
    fn limits(&self, limits: &Resources) -> Vec<Write>;
    /// The writes that change a group at work to these limits, of which `memory_limit` (bytes, `None` =
    /// none) is in force; in an order in which no step contradicts what is in force then.
    fn update(&self, limits: &Resources, memory_limit: Option<u64>) -> Vec<Write>;
    /// Which files [`Version::stats`] wants: controller and name.
    fn files(&self) -> &'static [(&'static str, &'static str)];
    /// Numbers out of those files, in the same order; a missing file is an empty text.
    fn stats(&self, files: &[String]) -> Stats;
    /// Which files [`Version::counters`] wants: controller and name.
    fn counter_files(&self) -> &'static [(&'static str, &'static str)];
    /// Counters out of those files, in the same order; huge pages have files of their own.
    fn counters(&self, files: &[String]) -> Counters;
    /// The files that tell how much of huge pages of a size is in use, and the most that ever was.
    fn huge_page_files(&self, size: &str) -> (String, Option<String>);
}

/// A size of huge pages as the names of cgroup files have it: `64KB`, `2MB`, `1GB`.
pub fn page_size(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 && kib.is_multiple_of(1 << 20) => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 && kib.is_multiple_of(1 << 10) => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    }
}

/// The number after `key ` at the start of a line.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn page_sizes_are_named_as_the_kernel_names_them() {
        let names = [64, 2_048, 32_768, 1_048_576].map(super::page_size);
        assert_eq!(names, ["64KB", "2MB", "32MB", "1GB"]);
    }
}
