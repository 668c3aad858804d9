//! What a group counted beyond its statistics: the numbers that only metrics ask for
//! (`cri-contract.md` §5.6), in v2 units. Reading them costs more, so lists of statistics leave them out.

use std::collections::BTreeMap;

/// Counters of one group at one moment; `None` = the kernel does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU time in programs, nanoseconds.
    pub user_nanos: Option<u64>,
    /// CPU time in the kernel, nanoseconds.
    pub system_nanos: Option<u64>,
    /// Periods of the CPU quota that began.
    pub periods: Option<u64>,
    /// Those in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Time for which everything stood still then, nanoseconds.
    pub throttled_nanos: Option<u64>,
    /// File cache, bytes.
    pub cache: Option<u64>,
    /// The kernel's own memory for the group, bytes.
    pub kernel: Option<u64>,
    /// Mapped files, bytes.
    pub mapped_file: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: Option<u64>,
    /// Most memory ever in use, bytes.
    pub most_memory: Option<u64>,
    /// Memory that is taken back last, bytes; `None` also where none is set.
    pub reserved_memory: Option<u64>,
    /// Page faults of the group alone, without those of groups below; v1 only.
    pub own_faults: Option<u64>,
    /// Likewise those that needed the disk.
    pub own_major_faults: Option<u64>,
    /// Most tasks that may be; `None` = any number.
    pub most_tasks: Option<u64>,
    /// What devices did for it, by major and minor number.
    pub devices: BTreeMap<(u32, u32), DeviceUse>,
    /// Huge pages, by size (`2MB`): bytes in use, and the most ever, where that is counted.
    pub huge_pages: BTreeMap<String, (u64, Option<u64>)>,
}

/// What one block device did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
}

/// `io.stat` of v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
pub(super) fn devices_v2(text: &str) -> BTreeMap<(u32, u32), DeviceUse> {
    let one = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let number = |key: &str| {
            let word = |word: &str| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
            rest.split(' ').find_map(word).unwrap_or_default()
        };
        let found = DeviceUse {
            read_bytes: number("rbytes"),
            written_bytes: number("wbytes"),
            reads: number("rios"),
            writes: number("wios"),
        };
        Some((device_number(device)?, found))
    };
    text.lines().filter_map(one).collect()
}

/// Two files of v1 with lines such as `8:0 Read 123`: bytes and requests.
pub(super) fn devices_v1(bytes: &str, requests: &str) -> BTreeMap<(u32, u32), DeviceUse> {
    let mut found: BTreeMap<(u32, u32), DeviceUse> = BTreeMap::new();
    for (device, is_read, count) in bytes.lines().filter_map(line_v1) {
        let known = found.entry(device).or_default();
        *(if is_read { &mut known.read_bytes } else { &mut known.written_bytes }) = count;
    }
    for (device, is_read, count) in requests.lines().filter_map(line_v1) {
        let known = found.entry(device).or_default();
        *(if is_read { &mut known.reads } else { &mut known.writes }) = count;
    }
    found
}

fn line_v1(line: &str) -> Option<((u32, u32), bool, u64)> {
    let mut words = line.split(' ');
    let (device, kind, count) = (words.next()?, words.next()?, words.next()?);
    let is_read = match kind {
        "Read" => true,
        "Write" => false,
        _ => return None,
    };
    Some((device_number(device)?, is_read, count.parse().ok()?))
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{DeviceUse, devices_v1, devices_v2};

    const BOTH: DeviceUse = DeviceUse { read_bytes: 4096, written_bytes: 8, reads: 1, writes: 2 };

    #[test]
    fn devices_are_read_from_one_file_of_v2() {
        let text = "254:0 rbytes=4096 wbytes=8 rios=1 wios=2 dbytes=0 dios=0\n8:16 \nrubbish\n";
        let found = devices_v2(text);
        assert_eq!(found[&(254, 0)], BOTH);
        assert_eq!(found[&(8, 16)], DeviceUse::default());
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn devices_are_read_from_two_files_of_v1() {
        let bytes = "254:0 Read 4096\n254:0 Write 8\n254:0 Sync 8\n254:0 Total 4104\nTotal 4104\n";
        let requests = "254:0 Read 1\n254:0 Write 2\n254:0 Discard 0\nTotal 3\n";
        let found = devices_v1(bytes, requests);
        assert_eq!((found.len(), found[&(254, 0)]), (1, BOTH));
        assert!(devices_v1("Total 0\n", "").is_empty());
    }
}
