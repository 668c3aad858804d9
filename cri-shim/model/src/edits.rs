//! Edits of a container that others than its request ask for: devices of CDI, plugins of NRI. They are checked
//! and whole: every number is known. Devices and groups are given to the spec with the request's own; the
//! rest is applied to the finished spec here.

use crate::cdi::{Name, RawEdits, RawHook, RawMount};
use crate::kind::Refused;
use crate::plan::{Rlimit, Source};
use crate::rlimits;
use crate::spec::devices::HostDevice;
use crate::spec::mounts::{c_string, entry, normal};
use crate::spec::{Built, Special};
use crate::users::User;
use oci_spec::runtime::{Hook as OciHook, Hooks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is to be changed. What is taken away is taken before anything is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edits {
    /// Variables, `NAME=value`; later ones win, over the request's too.
    pub env: Vec<String>,
    /// Device nodes.
    pub devices: Vec<HostDevice>,
    /// Mounts.
    pub mounts: Vec<EditMount>,
    /// Programs of the node that are run before the container's own root is all there is.
    pub hooks: Vec<Hook>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Names of variables that the container is not to have.
    pub unset: Vec<String>,
    /// Paths in the container at which nothing is to be mounted.
    pub unmounted: Vec<String>,
    /// Paths of device nodes that it is not to have.
    pub no_devices: Vec<String>,
    /// The whole command, if it is another one.
    pub args: Option<Vec<String>>,
    /// Annotations of the spec; `None` takes one away. Those of the request stay what they are.
    pub annotations: BTreeMap<String, Option<String>>,
    /// Limits of processes, instead of the configured ones of the same resource.
    pub rlimits: Vec<Rlimit>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMount {
    /// Path on the node; `None` = a new tmpfs.
    pub host_path: Option<String>,
    /// Where in the container.
    pub container_path: String,
    /// Options as the OCI spec has them.
    pub options: Vec<String>,
}

/// A program of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path on the node.
    pub path: String,
    /// Arguments, its own name first.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Ended after so many seconds.
    pub timeout: Option<u32>,
}

/// Options that a mount of an edit may have; what they mean is `plan/mounts`.
const OPTIONS: [&str; 16] = [
    "bind", "rbind", "ro", "rro", "rw", "nosuid", "nodev", "noexec", "private", "rprivate",
    "slave", "rslave", "suid", "dev", "exec", "relatime",
];

impl Edits {
    /// Adds what a device of CDI asks for, but its nodes, which only the node can complete.
    pub fn add(&mut self, name: &Name, raw: &RawEdits) -> Result<(), Refused> {
        if raw.intel_rdt.is_some() || !raw.net_devices.is_empty() {
            let allowed = "no intelRdt and no netDevices: this release does neither";
            return Err(Refused::new(format!("CDI device {name}"), "such edits", allowed));
        }
        self.env.extend(raw.env.iter().cloned());
        self.groups.extend(raw.additional_gids.iter().filter(|gid| **gid != 0));
        for mount in &raw.mounts {
            self.mounts.push(EditMount::parse(&format!("CDI device {name}"), mount)?);
        }
        for hook in &raw.hooks {
            self.hooks.push(edit_hook(name, hook)?);
        }
        Ok(())
    }

    /// Adds the edits of somebody else, which count more.
    pub fn extend(&mut self, other: Self) {
        self.devices.retain(|known| !other.devices.iter().any(|new| new.path == known.path));
        self.env.extend(other.env);
        self.devices.extend(other.devices);
        self.mounts.extend(other.mounts);
        self.hooks.extend(other.hooks);
        self.groups.extend(other.groups);
        self.unset.extend(other.unset);
        self.unmounted.extend(other.unmounted);
        self.no_devices.extend(other.no_devices);
        self.args = other.args.or(self.args.take());
        self.annotations.extend(other.annotations);
        self.rlimits.extend(other.rlimits);
    }

    /// True if nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Gives the user its further groups.
    pub fn join(&self, user: &mut User) -> Result<(), Refused> {
        if self.groups.contains(&u32::MAX) {
            return Err(Refused::new("additionalGids", u32::MAX.to_string(), "0 to 4294967294"));
        }
        user.groups.extend(&self.groups);
        user.groups.sort_unstable();
        user.groups.dedup();
        Ok(())
    }
}

impl EditMount {
    /// A mount that `who` asks for. Its paths are checked by whoever read them.
    pub fn parse(who: &str, raw: &RawMount) -> Result<Self, Refused> {
        let field = |part: &str| format!("{who}: mounts.{part}");
        let host_path = match raw.r#type.as_str() {
            "" | "none" | "bind" => Some(raw.host_path.clone()),
            "tmpfs" => None,
            other => return Err(Refused::new(field("type"), other, "none, bind or tmpfs")),
        };
        let data = |option: &str| {
            let named = ["mode=", "size=", "nr_inodes=", "uid=", "gid="];
            host_path.is_none() && named.iter().any(|name| option.starts_with(name))
        };
        let known = |option: &&String| OPTIONS.contains(&option.as_str()) || data(option);
        if let Some(other) = raw.options.iter().find(|option| !known(option)) {
            return Err(Refused::new(
                field("options"),
                other,
                format!("any of {}", OPTIONS.join(", ")),
            ));
        }
        // Those that only say what is so anyway: a flag of the source is never taken away.
        let says =
            |option: &&String| !["suid", "dev", "exec", "relatime"].contains(&option.as_str());
        let mut options: Vec<String> = raw.options.iter().filter(says).cloned().collect();
        if host_path.is_some() && !options.iter().any(|option| option.ends_with("bind")) {
            options.push("bind".to_owned());
        }
        Ok(Self { host_path, container_path: normal(&raw.container_path), options })
    }
}

/// Only the hook that runs while the container's root is still one folder among the node's: it sees both,
/// which is what the hooks of GPU vendors need, and it runs before anything of the image does.
fn edit_hook(name: &Name, raw: &RawHook) -> Result<Hook, Refused> {
    if raw.hook_name != "createContainer" {
        return Err(Refused::new(
            format!("CDI device {name}: hooks.hookName"),
            &raw.hook_name,
            "createContainer: this release runs no other hooks",
        ));
    }
    let args = if raw.args.is_empty() { vec![raw.path.clone()] } else { raw.args.clone() };
    let hook = Hook { path: raw.path.clone(), args, env: raw.env.clone(), timeout: raw.timeout };
    Ok(hook)
}

/// Applies everything but devices and groups to a spec.
pub fn apply(built: &mut Built, edits: &Edits) -> Result<(), Refused> {
    variables(built, edits);
    mounts(built, edits)?;
    if !edits.hooks.is_empty() {
        let mut hooks = Hooks::default();
        hooks.set_create_container(Some(edits.hooks.iter().map(oci_hook).collect()));
        built.spec.set_hooks(Some(hooks));
    }
    built.hooks.clone_from(&edits.hooks);
    for limit in &edits.rlimits {
        built.rlimits.retain(|known| known.resource != limit.resource);
        built.rlimits.push(*limit);
    }
    if let Some(process) = built.spec.process_mut() {
        process.set_rlimits(Some(built.rlimits.iter().filter_map(rlimits::oci).collect()));
        if let Some(args) = &edits.args {
            process.set_args(Some(args.clone()));
        }
    }
    let mut annotations = built.spec.annotations().clone().unwrap_or_default();
    for (key, value) in &edits.annotations {
        match value {
            Some(value) => annotations.insert(key.clone(), value.clone()),
            None => annotations.remove(key),
        };
    }
    built.spec.set_annotations(Some(annotations));
    Ok(())
}

fn variables(built: &mut Built, edits: &Edits) {
    built.env.retain(|(key, _)| !edits.unset.contains(key));
    for entry in &edits.env {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        let value = value.as_bytes().to_vec();
        match built.env.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => built.env.push((key.to_owned(), value)),
        }
    }
    let shown = built.env.iter();
    let shown = shown.map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)));
    let shown = shown.collect();
    if let Some(process) = built.spec.process_mut() {
        process.set_env(Some(shown));
    }
}

/// The last of a path wins, and parents come first, as in the request. Nothing is made on the node: what a
/// device names must be there.
fn mounts(built: &mut Built, edits: &Edits) -> Result<(), Refused> {
    if edits.mounts.is_empty() && edits.unmounted.is_empty() {
        return Ok(());
    }
    let mut all = built.spec.mounts().clone().unwrap_or_default();
    for path in &edits.unmounted {
        all.retain(|known| known.destination().as_os_str() != path.as_str());
        built.special.remove(path);
    }
    for edit in &edits.mounts {
        all.retain(|known| known.destination().as_os_str() != edit.container_path.as_str());
        built.special.remove(&edit.container_path);
        let options: Vec<&str> = edit.options.iter().map(String::as_str).collect();
        let (typ, source) = match &edit.host_path {
            Some(path) => {
                let tree =
                    Source::HostTree { path: c_string("mounts.hostPath", path)?, create: false };
                built.special.insert(edit.container_path.clone(), Special::Source(tree));
                ("bind", path.as_str())
            }
            None => ("tmpfs", "tmpfs"),
        };
        all.push(entry(&edit.container_path, typ, source, &options));
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    built.spec.set_mounts(Some(all));
    Ok(())
}

fn oci_hook(hook: &Hook) -> OciHook {
    let mut oci = OciHook::default();
    oci.set_path(hook.path.clone().into())
        .set_args(Some(hook.args.clone()))
        .set_env(Some(hook.env.clone()))
        .set_timeout(hook.timeout.map(i64::from));
    oci
}

#[cfg(test)]
mod tests {
    use super::{Edits, Hook};
    use crate::cdi::{Name, RawEdits, RawHook, RawMount};

    fn name() -> Name {
        Name::parse("x", "v.com/gpu=0").unwrap()
    }

    fn add(raw: &RawEdits) -> Result<Edits, String> {
        let mut edits = Edits::default();
        edits.add(&name(), raw).map(|()| edits).map_err(|refused| refused.to_string())
    }

    #[test]
    fn what_a_device_asks_for_is_gathered() {
        let mount = RawMount {
            host_path: "/usr/lib/libx.so".into(),
            container_path: "/usr//lib/libx.so/".into(),
            options: vec!["ro".into(), "nosuid".into(), "dev".into()],
            ..RawMount::default()
        };
        let hook = RawHook {
            hook_name: "createContainer".into(),
            path: "/usr/bin/hook".into(),
            timeout: Some(5),
            ..RawHook::default()
        };
        let raw = RawEdits {
            env: vec!["A=b".into()],
            additional_gids: vec![0, 44],
            mounts: vec![mount],
            hooks: vec![hook],
            ..RawEdits::default()
        };
        let edits = add(&raw).unwrap();
        assert_eq!((edits.env.len(), edits.groups.as_slice()), (1, &[44][..]));
        assert_eq!(edits.mounts[0].container_path, "/usr/lib/libx.so");
        assert_eq!(edits.mounts[0].options, ["ro", "nosuid", "bind"]);
        let path = "/usr/bin/hook".to_owned();
        let hook = Hook { args: vec![path.clone()], path, env: vec![], timeout: Some(5) };
        assert_eq!(edits.hooks, [hook]);
    }

    #[test]
    fn what_this_release_does_not_do_is_refused_by_the_devices_name() {
        let hook = |word: &str| RawHook { hook_name: word.into(), ..RawHook::default() };
        let mount = |typ: &str, option: &str| RawMount {
            r#type: typ.into(),
            options: vec![option.into()],
            ..RawMount::default()
        };
        let with = |hooks: Vec<RawHook>, mounts: Vec<RawMount>| RawEdits {
            mounts,
            hooks,
            ..RawEdits::default()
        };
        let mut bad: Vec<RawEdits> = ["prestart", "createRuntime", "poststop"]
            .map(|word| with(vec![hook(word)], vec![]))
            .into();
        bad.push(with(vec![], vec![mount("nfs", "ro")]));
        bad.push(with(vec![], vec![mount("", "shared")]));
        bad.push(with(vec![], vec![mount("", "size=5")]));
        bad.push(RawEdits { intel_rdt: Some(serde_json::json!({})), ..RawEdits::default() });
        bad.push(RawEdits { net_devices: vec![serde_json::json!({})], ..RawEdits::default() });
        for raw in bad {
            let refused = add(&raw).unwrap_err();
            assert!(refused.starts_with("CDI device v.com/gpu=0"), "{refused}");
        }
        assert!(add(&with(vec![], vec![mount("tmpfs", "size=5")])).is_ok());
    }
}
