//! Usage of a cgroup in v2 units: what the CRI's statistics are made of (`cri-contract.md` §3.3).

/// Numbers of one group at one moment; `None` = the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time of the group since it was made, nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory charged, bytes.
    pub memory: Option<u64>,
    /// File cache that could be taken back at once, bytes.
    pub inactive_file: Option<u64>,
    /// Anonymous memory, bytes.
    pub anonymous: Option<u64>,
    /// Page faults.
    pub faults: Option<u64>,
    /// Page faults that needed the disk.
    pub major_faults: Option<u64>,
    /// Swap in use, bytes.
    pub swap: Option<u64>,
    /// Limit of memory, bytes; `None` = none.
    pub memory_limit: Option<u64>,
    /// Tasks.
    pub tasks: Option<u64>,
    /// Processes that were killed because memory ran out (Linux 4.13).
    pub oom_kills: Option<u64>,
    /// Limit of swap alone, bytes; `None` = none, or v1.
    pub swap_limit: Option<u64>,
    /// Time lost waiting for CPU; `None` here and below: v1, or a kernel without pressure stall
    /// information.
    pub cpu_pressure: Option<Pressure>,
    /// Time lost waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Time lost waiting for disks.
    pub io_pressure: Option<Pressure>,
}

/// Pressure stall information of one resource (Documentation/accounting/psi.rst, Linux 4.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Time in which at least one task waited.
    pub some: Stall,
    /// Time in which all did; for CPU since Linux 5.13.
    pub full: Stall,
}

/// Lost time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Share of the last 10 seconds, in hundredths of a percent.
    pub avg10: u32,
    /// Of the last minute.
    pub avg60: u32,
    /// Of the last five minutes.
    pub avg300: u32,
    /// Since the group was made, nanoseconds.
    pub total_nanos: u64,
}

impl Pressure {
    /// Reads a `*.pressure` file; `None` if it is no such text.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
        let some = Stall::parse(line("some ")?)?;
        Some(Self { some, full: line("full ").and_then(Stall::parse).unwrap_or_default() })
    }
}

impl Stall {
    /// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`, the last in microseconds.
    fn parse(line: &str) -> Option<Self> {
        let word = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let hundredths = |name: &str| -> Option<u32> {
            let (whole, part) = word(name)?.split_once('.')?;
            let part = if part.len() == 2 { part.parse::<u32>().ok()? } else { return None };
            whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)
        };
        Some(Self {
            avg10: hundredths("avg10")?,
            avg60: hundredths("avg60")?,
            avg300: hundredths("avg300")?,
            total_nanos: word("total")?.parse::<u64>().ok()?.saturating_mul(1_000),
        })
    }
}

impl Stats {
    /// Memory that cannot be taken back at once; never below zero.
    pub fn working_set(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.inactive_file.unwrap_or_default()))
    }

    /// What is left below the limit.
    pub fn available(&self) -> Option<u64> {
        Some(self.memory_limit?.saturating_sub(self.working_set()?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Pressure, Stall, Stats};

    #[test]
    fn the_working_set_never_goes_below_zero() {
        let stats = Stats { memory: Some(5), inactive_file: Some(9), ..Stats::default() };
        assert_eq!((stats.working_set(), stats.available()), (Some(0), None));
        let limited = Stats { memory_limit: Some(7), ..stats };
        assert_eq!(limited.available(), Some(7));
    }

    #[test]
    fn pressure_is_read_with_and_without_the_full_line() {
        let some = "some avg10=1.53 avg60=0.05 avg300=100.00 total=12\n";
        let stall = Stall { avg10: 153, avg60: 5, avg300: 10_000, total_nanos: 12_000 };
        let alone = Pressure { some: stall, full: Stall::default() };
        assert_eq!(Pressure::parse(some), Some(alone));
        let both = format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=3\n");
        assert_eq!(Pressure::parse(&both).unwrap().full.total_nanos, 3_000);
        for bad in ["", "full avg10=0.00", "some avg10=1 avg60=0.00 avg300=0.00 total=0"] {
            assert_eq!(Pressure::parse(bad), None, "{bad}");
        }
    }
}
