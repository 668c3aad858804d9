//! Which cgroup hierarchies the host has mounted, out of the text of /proc/self/mountinfo (proc(5)).

use super::V1Hierarchy;
use std::path::PathBuf;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// v1 hierarchies.
    pub v1: Vec<V1Hierarchy>,
    /// The cgroup2 mount.
    pub v2: Option<PathBuf>,
}

/// Controllers of v1; other options of a mount (`xattr`, `seclabel`, `favordynmods`) are none.
const CONTROLLERS: [&str; 14] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

/// Reads the table; the first mount of a hierarchy counts.
pub fn hierarchies(mountinfo: &str) -> Found {
    let mut found = Found::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).map(unescape) else { continue };
        let mut right = right.split(' ');
        let (Some(fstype), Some(_source), Some(options)) =
            (right.next(), right.next(), right.next())
        else {
            continue;
        };
        match fstype {
            "cgroup2" if found.v2.is_none() => found.v2 = Some(mount),
            "cgroup" => {
                let mut controllers: Vec<String> = options
                    .split(',')
                    .filter(|option| CONTROLLERS.contains(option) || option.starts_with("name="))
                    .map(str::to_owned)
                    .collect();
                controllers.sort();
                if !controllers.is_empty() && !found.v1.iter().any(|h| h.controllers == controllers)
                {
                    found.v1.push(V1Hierarchy { controllers, mount });
                }
            }
            _ => {}
        }
    }
    found
}

/// Space, tab, newline and backslash stand there as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)).into()
}

#[cfg(test)]
mod tests {
    use super::hierarchies;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_hybrid_host_has_both() {
        let found = hierarchies(HYBRID);
        assert_eq!(found.v2.unwrap().to_str(), Some("/sys/fs/cgroup/unified"));
        let controllers: Vec<_> = found.v1.iter().map(|h| h.controllers.join("+")).collect();
        assert_eq!(controllers, ["cpu+cpuacct", "name=systemd"]);
    }

    #[test]
    fn a_pure_host_has_only_v2() {
        let found = hierarchies("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\nnonsense\n");
        assert!(found.v1.is_empty() && found.v2.is_some());
    }

    #[test]
    fn options_that_are_no_controllers_are_left_out() {
        let line = "32 31 0:29 / /a\\040b rw - cgroup cgroup rw,seclabel,favordynmods,memory\n";
        let found = hierarchies(line).v1.remove(0);
        assert_eq!(found.controllers, ["memory"]);
        assert_eq!(found.mount.to_str(), Some("/a b"));
    }
}
