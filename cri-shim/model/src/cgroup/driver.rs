//! Names of groups. With the cgroupfs driver a container's leaf is `PARENT/ID`, where PARENT is the
//! pod's group as the kubelet names it, or our own default. The systemd driver names slices and
//! scopes instead: its seam is [`Driver`], it comes with its own release.

use crate::id::ContainerId;
use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where pods live whose request names no parent.
pub const DEFAULT_PARENT: &str = "wherry/pods";
/// Where daemon, zygote, monitors and pull workers live: no pod may be put there.
pub const OWN_SLICE: &str = "wherry/runtime";

/// Who makes groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// We, by mkdir(2).
    Cgroupfs,
}

/// A group's path below the root of every hierarchy: relative, without `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupPath(String);

impl GroupPath {
    /// Checks a parent that a request names; empty means our own.
    pub fn parent(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Ok(Self(DEFAULT_PARENT.to_owned()));
        }
        let field = "config.linux.cgroup_parent";
        let path = text.trim_matches('/');
        let legal = text.starts_with('/')
            && !path.is_empty()
            && path
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n']));
        if !legal {
            return Err(Refused::new(field, text, "an absolute path without . and .., or nothing"));
        }
        if path.rsplit('.').next() == Some("slice") {
            return Err(Refused::new(
                field,
                text,
                "a path of the cgroupfs driver: this release has no systemd driver, set the kubelet's cgroupDriver to cgroupfs",
            ));
        }
        if path == OWN_SLICE || path.starts_with("wherry/runtime/") {
            return Err(Refused::new(field, text, "another group: this one is the runtime's own"));
        }
        Ok(Self(path.to_owned()))
    }

    /// The runtime's own group.
    pub fn own() -> Self {
        Self(OWN_SLICE.to_owned())
    }

    /// The leaf of a container.
    #[must_use]
    pub fn leaf(&self, id: &ContainerId) -> Self {
        Self(format!("{}/{id}", self.0))
    }

    /// The leaf of a pod's first process.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Relative to the root of a hierarchy.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::GroupPath;

    #[test]
    fn a_parent_stays_below_the_root() {
        assert_eq!(
            GroupPath::parent("/kubepods/burstable/podx").unwrap().as_str(),
            "kubepods/burstable/podx"
        );
        assert_eq!(GroupPath::parent("").unwrap().as_str(), super::DEFAULT_PARENT);
        for bad in [
            "kubepods",
            "/",
            "/a/../b",
            "/a//b",
            "/kubepods.slice",
            "/wherry/runtime",
            "/wherry/runtime/x",
            "/a\n",
        ] {
            assert!(GroupPath::parent(bad).is_err(), "{bad:?}");
        }
    }
}
