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
    /// Limit of swap alone, bytes; `None` = none.
    pub swap_limit: Option<u64>,
    /// Time lost waiting for CPU; `None` here and below: no v2 hierarchy, or a kernel without pressure
    /// stall information.
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

/// Where pressure is told, in every group of a v2 hierarchy, whichever controllers it has: CPU, memory, io.
pub const PRESSURE_FILES: [&str; 3] = ["cpu.pressure", "memory.pressure", "io.pressure"];

/// CPU time at one moment, to tell how much is used between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSample {
    /// CPU time so far, nanoseconds.
    pub nanos: u64,
    /// When, nanoseconds on a clock that never goes back.
    pub at: u64,
    /// Nanoseconds of CPU time in one second, between this sample and the one before it.
    pub rate: Option<u64>,
}

impl CpuSample {
    /// The sample after `before`. Samples that are too close tell nothing: then `before` stays.
    #[must_use]
    pub fn after(before: Option<Self>, nanos: u64, at: u64) -> Self {
        let Some(before) = before else { return Self { nanos, at, rate: None } };
        let passed = at.saturating_sub(before.at);
        if passed < LEAST_BETWEEN_SAMPLES {
            return before;
        }
        // Less than before: another group, such as a pod whose container is gone.
        let used = nanos.checked_sub(before.nanos).filter(|_| passed <= MOST_BETWEEN_SAMPLES);
        let rate =
            used.map(|used| u128::from(used).saturating_mul(1_000_000_000) / u128::from(passed));
        Self { nanos, at, rate: rate.and_then(|rate| u64::try_from(rate).ok()) }
    }
}

/// A second: the kernel accounts in ticks of up to 10 ms, so this is right to a percent.
const LEAST_BETWEEN_SAMPLES: u64 = 1_000_000_000;
/// Five minutes: an average over more says nothing about now.
const MOST_BETWEEN_SAMPLES: u64 = 300_000_000_000;

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
    /// What a group without processes uses: the numbers that every group has, all zero.
    pub fn nothing() -> Self {
        let zero = Some(0);
        Self {
            cpu_nanos: zero,
            memory: zero,
            inactive_file: zero,
            anonymous: zero,
            faults: zero,
            major_faults: zero,
            tasks: zero,
            oom_kills: zero,
            ..Self::default()
        }
    }

    /// Two groups together. What is no sum (limits, pressure) is not told then.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            cpu_nanos: sum(self.cpu_nanos, other.cpu_nanos),
            memory: sum(self.memory, other.memory),
            inactive_file: sum(self.inactive_file, other.inactive_file),
            anonymous: sum(self.anonymous, other.anonymous),
            faults: sum(self.faults, other.faults),
            major_faults: sum(self.major_faults, other.major_faults),
            swap: sum(self.swap, other.swap),
            tasks: sum(self.tasks, other.tasks),
            oom_kills: sum(self.oom_kills, other.oom_kills),
            ..Self::default()
        }
    }

    /// Memory that cannot be taken back at once; never below zero.
    pub fn working_set(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.inactive_file.unwrap_or_default()))
    }

    /// What is left of swap below its limit.
    pub fn swap_available(&self) -> Option<u64> {
        Some(self.swap_limit?.saturating_sub(self.swap?))
    }

    /// What is left below the limit.
    pub fn available(&self) -> Option<u64> {
        Some(self.memory_limit?.saturating_sub(self.working_set()?))
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuSample, Pressure, Stall, Stats};

    #[test]
    fn the_working_set_never_goes_below_zero() {
        let stats = Stats { memory: Some(5), inactive_file: Some(9), ..Stats::default() };
        assert_eq!((stats.working_set(), stats.available()), (Some(0), None));
        let limited = Stats { memory_limit: Some(7), ..stats };
        assert_eq!(limited.available(), Some(7));
    }

    #[test]
    fn groups_are_added_and_what_one_does_not_tell_is_the_others() {
        let one = Stats { memory: Some(5), memory_limit: Some(9), swap: None, ..Stats::nothing() };
        let sum = Stats::nothing().plus(one).plus(Stats { swap: Some(3), ..one });
        assert_eq!((sum.memory, sum.swap, sum.memory_limit), (Some(10), Some(3), None));
        assert_eq!((sum.tasks, sum.working_set()), (Some(0), Some(10)));
    }

    #[test]
    fn a_rate_needs_two_samples_with_some_time_between() {
        const SECOND: u64 = 1_000_000_000;
        let first = CpuSample::after(None, 5 * SECOND, 10 * SECOND);
        assert_eq!(first.rate, None);
        assert_eq!(CpuSample::after(Some(first), 6 * SECOND, 10 * SECOND + 5), first);
        let second = CpuSample::after(Some(first), 6 * SECOND, 14 * SECOND);
        assert_eq!(second.rate, Some(SECOND / 4));
        // Too close: what was known stays.
        assert_eq!(CpuSample::after(Some(second), 7 * SECOND, 14 * SECOND + 1), second);
        assert_eq!(CpuSample::after(Some(second), 1, 20 * SECOND).rate, None);
        assert_eq!(CpuSample::after(Some(second), 9 * SECOND, 999 * SECOND).rate, None);
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
