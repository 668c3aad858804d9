//! Which devices a container may use. On v1 it is text for `devices.allow`; on v2 a small program for
//! `BPF_CGROUP_DEVICE` (`shim-sys`, `bpf.rs`), because v2 has no file for it.

use crate::spec::devices::HostDevice;

/// Everything, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRules {
    /// A privileged container.
    All,
    /// Nothing but these.
    Only(Vec<Rule>),
}

/// One rule; `None` = any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Block, else character.
    pub block: bool,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// Character devices that every container may use (`cri-contract.md` §2.7).
const DEFAULT: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

impl DeviceRules {
    /// The rules of a container with these further nodes.
    pub fn of(privileged: bool, asked: &[HostDevice]) -> Self {
        if privileged {
            return Self::All;
        }
        let rule = |block, major, minor, access: &str| Rule {
            block,
            major,
            minor,
            access: access.to_owned(),
        };
        let mut rules = vec![rule(false, None, None, "m"), rule(true, None, None, "m")];
        rules.extend(DEFAULT.iter().map(|(major, minor)| rule(false, Some(*major), *minor, "rwm")));
        rules.extend(
            asked
                .iter()
                .map(|node| rule(node.block, Some(node.major), Some(node.minor), &node.access)),
        );
        Self::Only(rules)
    }

    /// What is written on v1: file and text, in order.
    pub fn v1_writes(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::All => vec![("devices.allow", "a".to_owned())],
            Self::Only(rules) => {
                let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
                let line = |r: &Rule| {
                    let kind = if r.block { 'b' } else { 'c' };
                    format!("{kind} {}:{} {}", number(r.major), number(r.minor), r.access)
                };
                let mut writes = vec![("devices.deny", "a".to_owned())];
                writes.extend(rules.iter().map(|rule| ("devices.allow", line(rule))));
                writes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceRules;

    #[test]
    fn everything_is_denied_before_something_is_allowed() {
        let writes = DeviceRules::of(false, &[]).v1_writes();
        assert_eq!(writes[0], ("devices.deny", "a".to_owned()));
        assert!(writes.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        assert!(writes.contains(&("devices.allow", "c 136:* rwm".to_owned())));
    }
}
