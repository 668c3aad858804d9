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

/// Options of a cgroup super block that are not controllers.
const NOT_CONTROLLERS: [&str; 7] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "nsdelegate", "relatime"];

/// Reads the table; the first mount of a hierarchy counts.
pub fn hierarchies(mountinfo: &str) -> Found {
    let mut found = Found::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
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
                    .filter(|option| {
                        !NOT_CONTROLLERS.contains(option) && !option.starts_with("release_agent")
                    })
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
}
