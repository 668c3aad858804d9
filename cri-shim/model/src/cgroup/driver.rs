//! Names of groups, for either driver.
//!
//! - **cgroupfs**: a container's leaf is `PARENT/ID`; PARENT is the pod's group as the kubelet names it, or
//!   our own default.
//! - **systemd**: PARENT is a slice, and a pod has one scope in it, delegated to us: a container's leaf is
//!   `SLICE/cri-wherry-POD.scope/ID`. systemd owns the slice and the scope's own files, and never looks
//!   below (`systemd.resource-control(5)`, `Delegate=`): limits there outlive a reload of its units, a
//!   container's start needs no word with it, and a leaf does not vanish with its last process, before its
//!   out-of-memory kills were counted.

use crate::id::{ContainerId, SandboxId};
use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where pods live whose request names no parent, with the cgroupfs driver.
pub const DEFAULT_PARENT: &str = "wherry/pods";
/// Where daemon, zygote, monitors and pull workers live: no pod may be put there.
pub const OWN_SLICE: &str = "wherry/runtime";
/// The default parent with the systemd driver.
const DEFAULT_SLICE: &str = "wherry-pods.slice";
/// Our own group with the systemd driver; a scope has no name beside its slice's.
const OWN_SCOPE: &str = "wherry.slice/wherry-runtime.scope";
/// How names of pods' scopes begin.
const SCOPE: &str = "cri-wherry-";
/// Longest name of a unit (`UNIT_NAME_MAX`).
const UNIT_NAME: usize = 255;

/// Who makes groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// We, by mkdir(2).
    Cgroupfs,
    /// systemd makes slices and scopes; we make what is below a scope.
    Systemd,
}

impl Driver {
    /// Checks a parent that a request names; empty means our own.
    pub fn parent(self, text: &str) -> Result<GroupPath, Refused> {
        match self {
            Self::Cgroupfs => GroupPath::parent(text),
            Self::Systemd => GroupPath::slice(text),
        }
    }

    /// What a pod has below that parent.
    #[must_use]
    pub fn pod(self, parent: GroupPath, id: &SandboxId) -> GroupPath {
        match self {
            Self::Cgroupfs => parent,
            Self::Systemd => parent.named(&format!("{SCOPE}{id}.scope")),
        }
    }

    /// The runtime's own group.
    pub fn own(self) -> GroupPath {
        GroupPath(match self {
            Self::Cgroupfs => OWN_SLICE.to_owned(),
            Self::Systemd => OWN_SCOPE.to_owned(),
        })
    }
}

/// A group's path below the root of every hierarchy: relative, without `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupPath(String);

impl GroupPath {
    /// Checks a parent of the cgroupfs driver.
    pub fn parent(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Ok(Self(DEFAULT_PARENT.to_owned()));
        }
        let path = legal(text)?;
        if is_slice(path) {
            return Err(refused(
                text,
                "a path of the cgroupfs driver, which this daemon uses: set its key cgroup.driver to \
                 \"systemd\", or the kubelet's cgroupDriver to cgroupfs",
            ));
        }
        if path == OWN_SLICE || path.starts_with("wherry/runtime/") {
            return Err(refused(text, "another group: this one is the runtime's own"));
        }
        Ok(Self(path.to_owned()))
    }

    /// Checks a parent of the systemd driver: a path whose last part is a slice. Where a slice is, its name
    /// says alone: `a-b.slice` is in `a.slice` (`systemd.slice(5)`).
    fn slice(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Ok(Self(expand(DEFAULT_SLICE)));
        }
        let path = legal(text)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        if !is_slice(name) {
            return Err(refused(
                text,
                "a path that ends in a slice, for this daemon uses the systemd driver: set its key \
                 cgroup.driver to \"cgroupfs\", or the kubelet's cgroupDriver to systemd",
            ));
        }
        let stem = name.trim_end_matches(".slice");
        let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
        if stem.split('-').any(str::is_empty) || !stem.chars().all(known) || name.len() > UNIT_NAME
        {
            return Err(refused(text, "a slice that systemd can have, such as /kubepods.slice"));
        }
        Ok(Self(expand(name)))
    }

    /// The scope that systemd made for this group and its slice, if it is a pod's or our own.
    pub fn scope(&self) -> Option<(&str, &str)> {
        let (above, name) = self.0.rsplit_once('/')?;
        let slice = above.rsplit('/').next().filter(|slice| is_slice(slice))?;
        let (stem, kind) = name.rsplit_once('.')?;
        let ours = kind == "scope" && (stem.starts_with(SCOPE) || self.0 == OWN_SCOPE);
        ours.then_some((name, slice))
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

fn refused(found: &str, allowed: &'static str) -> Refused {
    Refused::new("config.linux.cgroup_parent", found, allowed)
}

fn legal(text: &str) -> Result<&str, Refused> {
    let path = text.trim_matches('/');
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n']);
    if text.starts_with('/') && !path.is_empty() && path.split('/').all(part) {
        return Ok(path);
    }
    Err(refused(text, "an absolute path without . and .., or nothing"))
}

fn is_slice(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, kind)| kind == "slice")
}

/// `a-b-c.slice` to `a.slice/a-b.slice/a-b-c.slice`.
fn expand(slice: &str) -> String {
    let stem = slice.trim_end_matches(".slice");
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let above: Vec<String> =
        ends.filter_map(|end| stem.get(..end)).map(|part| format!("{part}.slice")).collect();
    above.join("/")
}

#[cfg(test)]
mod tests {
    use super::{Driver, GroupPath};
    use crate::id::SandboxId;

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

    #[test]
    fn a_slice_is_where_its_name_says() {
        let parent = |text| Driver::Systemd.parent(text).map(|path| path.to_string());
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        assert_eq!(parent(pod).unwrap(), pod);
        assert_eq!(parent("/kubepods-burstable-pod1_2.slice").unwrap(), pod);
        assert_eq!(parent("/test.slice").unwrap(), "/test.slice");
        assert_eq!(parent("").unwrap(), "/wherry.slice/wherry-pods.slice");
        let long = format!("/{}.slice", "x".repeat(250));
        for bad in
            ["/kubepods", "x.slice", "/-.slice", "/a--b.slice", "/a b.slice", &long, "/.slice"]
        {
            assert!(parent(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pod_has_a_scope_of_its_own_in_its_slice() {
        let id = SandboxId::from_random([7; 32]);
        let parent = Driver::Systemd.parent("/a-b.slice").unwrap();
        let pod = Driver::Systemd.pod(parent.clone(), &id);
        assert_eq!(pod.to_string(), format!("/a.slice/a-b.slice/cri-wherry-{id}.scope"));
        assert_eq!(pod.scope().unwrap(), (format!("cri-wherry-{id}.scope").as_str(), "a-b.slice"));
        assert_eq!((parent.scope(), pod.named("x").scope()), (None, None));
        assert_eq!(Driver::Systemd.own().scope(), Some(("wherry-runtime.scope", "wherry.slice")));
        let same = Driver::Cgroupfs.pod(GroupPath::parent("/p").unwrap(), &id);
        assert_eq!((same.as_str(), same.scope()), ("p", None));
    }
}
