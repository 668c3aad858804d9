//! The security chapter: capabilities, profiles, masked and read-only paths, privileged. Order and
//! defaults of `cri-contract.md` §2.5 and §2.10. An unknown name is refused, never dropped.

use super::SpecInput;
use crate::container::config::{Capabilities, ContainerConfig};
use crate::host::Host;
use crate::kind::Refused;
use crate::labels::{apparmor, selinux};
use crate::plan::CapabilitySets;
use crate::sandbox::config::{Profile, SandboxConfig};
use crate::sandbox::plan::PodSetup;
use oci_spec::runtime::{Capability, LinuxCapabilities};
use std::collections::HashSet;

/// Capabilities by number (linux/capability.h, complete up to Linux 5.9's `CHECKPOINT_RESTORE`).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All of them.
const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a container has when nobody says otherwise, as Docker and containerd have it.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The field of a request that names an AppArmor profile.
pub const APPARMOR: &str = "config.linux.security_context.apparmor";

/// Which seccomp filter a container gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeccompChoice {
    /// None.
    Unconfined,
    /// The built-in profile.
    Default,
    /// The profile in this file.
    File(String),
}

/// The choice of a request: unset means none, as the protocol says; privileged overrides.
pub fn seccomp(container: &ContainerConfig) -> SeccompChoice {
    match &container.seccomp {
        _ if container.privileged => SeccompChoice::Unconfined,
        None | Some(Profile::Unconfined) => SeccompChoice::Unconfined,
        Some(Profile::RuntimeDefault) => SeccompChoice::Default,
        Some(Profile::Localhost(path)) => SeccompChoice::File(path.clone()),
    }
}

/// What can be refused without the image.
pub fn check(
    container: &ContainerConfig,
    sandbox: &SandboxConfig,
    host: &Host,
) -> Result<(), Refused> {
    let field = "config.linux.security_context";
    if container.privileged && !sandbox.privileged {
        return Err(Refused::new(
            format!("{field}.privileged"),
            "true",
            "true only in a sandbox that is privileged too",
        ));
    }
    sets(container, host.bounding)?;
    if let SeccompChoice::File(path) = seccomp(container)
        && !path.starts_with('/')
    {
        return Err(Refused::new(
            format!("{field}.seccomp.localhost_ref"),
            path,
            "the absolute path of a profile",
        ));
    }
    apparmor::choose(APPARMOR, container.apparmor.as_ref(), container.privileged, host)?;
    selinux::choose(container.selinux.as_ref(), container.privileged, "s0", host)?;
    for (name, paths) in
        [("masked_paths", &container.masked_paths), ("readonly_paths", &container.readonly_paths)]
    {
        if let Some(bad) = paths.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
            return Err(Refused::new(format!("{field}.{name}"), bad, "absolute paths"));
        }
    }
    Ok(())
}

/// What a container of this pod may be given at most: what the runtime itself has. In a user namespace of
/// its own that is everything, for it counts inside only.
pub fn may(host: &Host, setup: &PodSetup) -> u64 {
    if setup.user.is_some() { ALL } else { host.bounding }
}

/// The five sets of a container that may have these capabilities.
pub fn sets(container: &ContainerConfig, may: u64) -> Result<CapabilitySets, Refused> {
    if container.privileged {
        let all = may;
        return Ok(CapabilitySets {
            bounding: all,
            effective: all,
            permitted: all,
            inheritable: 0,
            ambient: 0,
        });
    }
    let field = "config.linux.security_context.capabilities";
    let Capabilities { add, drop, ambient } = &container.capabilities;
    let (add_all, adds) = masks(&format!("{field}.add_capabilities"), add)?;
    let (drop_all, drops) = masks(&format!("{field}.drop_capabilities"), drop)?;
    let (ambient_all, ambients) = masks(&format!("{field}.add_ambient_capabilities"), ambient)?;
    let mut set = DEFAULT.iter().filter_map(|name| mask(name)).fold(0, |set, bit| set | bit);
    if add_all {
        set = may;
    }
    if drop_all {
        set = 0;
    }
    set = (set | adds) & !drops;
    let ambients = if ambient_all { may } else { ambients };
    let have = (set | ambients) & may;
    Ok(CapabilitySets {
        bounding: have,
        effective: have,
        permitted: have,
        inheritable: ambients & may,
        ambient: ambients & may,
    })
}

/// Whether `ALL` stands among the names, and the bits of the others.
fn masks(field: &str, names: &[String]) -> Result<(bool, u64), Refused> {
    let mut all = false;
    let mut bits = 0;
    for name in names {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            all = true;
            continue;
        }
        bits |= mask(upper.strip_prefix("CAP_").unwrap_or(&upper))
            .ok_or_else(|| Refused::new(field, name, "ALL or a capability of capabilities(7)"))?;
    }
    Ok((all, bits))
}

/// The bit of a capability, named without `CAP_`.
pub(crate) fn mask(name: &str) -> Option<u64> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|number| 1u64.checked_shl(u32::try_from(number).ok()?))
}

/// The names in a set, with `CAP_`.
pub fn names(set: u64) -> Vec<String> {
    let has = |number: usize| {
        u32::try_from(number).is_ok_and(|n| set.checked_shr(n).unwrap_or_default() & 1 == 1)
    };
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| has(*number))
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// The sets as the OCI spec shows them.
pub(super) fn oci_capabilities(input: &SpecInput<'_>) -> Result<LinuxCapabilities, Refused> {
    let sets = sets(input.container, may(input.host, input.setup))?;
    let mut oci = LinuxCapabilities::default();
    oci.set_bounding(Some(shown(sets.bounding)))
        .set_effective(Some(shown(sets.effective)))
        .set_permitted(Some(shown(sets.permitted)))
        .set_inheritable(Some(shown(sets.inheritable)))
        .set_ambient(Some(shown(sets.ambient)));
    Ok(oci)
}

/// They are parsed by their names without `CAP_`.
fn shown(set: u64) -> HashSet<Capability> {
    let known = names(set);
    let known = known.iter().filter_map(|name| name.strip_prefix("CAP_")?.parse().ok());
    known.collect()
}

/// Hidden paths: exactly the request's, none when privileged.
pub(super) fn masked(container: &ContainerConfig) -> Vec<String> {
    if container.privileged { Vec::new() } else { container.masked_paths.clone() }
}

/// Read-only paths: exactly the request's, none when privileged.
pub(super) fn readonly(container: &ContainerConfig) -> Vec<String> {
    if container.privileged { Vec::new() } else { container.readonly_paths.clone() }
}

#[cfg(test)]
mod tests {
    use super::{ALL, NAMES, names, sets, shown};
    use crate::container::config::{Capabilities, ContainerConfig};
    use crate::host::Host;

    fn have(add: &[&str], drop: &[&str]) -> Result<Vec<String>, String> {
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let capabilities = Capabilities { add: own(add), drop: own(drop), ambient: Vec::new() };
        let container = ContainerConfig { capabilities, ..ContainerConfig::default() };
        sets(&container, Host::example().bounding)
            .map(|s| names(s.effective))
            .map_err(|refused| refused.field)
    }

    #[test]
    fn all_is_applied_before_single_names() {
        assert_eq!(have(&[], &[]).unwrap().len(), 14);
        assert_eq!(have(&["ALL"], &[]).unwrap().len(), 41);
        assert_eq!(have(&[], &["all"]).unwrap().len(), 0);
        assert_eq!(have(&["net_admin"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(have(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap().len(), 40);
    }

    #[test]
    fn every_capability_is_shown_in_the_spec() {
        assert_eq!(shown(ALL).len(), NAMES.len());
        let one = serde_json::to_value(shown(1)).unwrap();
        assert_eq!(one, serde_json::json!(["CAP_CHOWN"]));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(have(&["CAP_FOO"], &[]).is_err() && have(&[], &["foo"]).is_err());
    }
}
