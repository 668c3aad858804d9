//! What plugins together make of a new container, as what this runtime understands. Pure. What it cannot do is
//! refused by the name of the field: a plugin that asks for it must not believe that it happened.

use super::owners::removal;
use super::resources;
use shim_model::cdi::RawMount;
use shim_model::edits::{EditMount, Edits, Hook};
use shim_model::nri::Adjustment;
use shim_model::plan::Rlimit;
use shim_model::rlimits;
use shim_model::spec::devices::HostDevice;
use shim_model::users::User;
use shim_proto::nri_v1alpha1 as nri;

/// Refuses what this runtime cannot do.
pub(super) fn refuse(theirs: &nri::ContainerAdjustment) -> Result<(), String> {
    let hooks = theirs.hooks.clone().unwrap_or_default();
    let linux = theirs.linux.clone().unwrap_or_default();
    let no = [
        ("hooks.prestart", !hooks.prestart.is_empty()),
        ("hooks.create_runtime", !hooks.create_runtime.is_empty()),
        ("hooks.start_container", !hooks.start_container.is_empty()),
        ("hooks.poststart", !hooks.poststart.is_empty()),
        ("hooks.poststop", !hooks.poststop.is_empty()),
        ("linux.cgroups_path", !linux.cgroups_path.is_empty()),
        ("linux.io_priority", linux.io_priority.is_some()),
        ("linux.seccomp_policy", linux.seccomp_policy.is_some()),
        ("linux.namespaces", !linux.namespaces.is_empty()),
        ("linux.sysctl", !linux.sysctl.is_empty()),
        ("linux.net_devices", !linux.net_devices.is_empty()),
        ("linux.scheduler", linux.scheduler.is_some()),
        ("linux.rdt", linux.rdt.is_some()),
        ("linux.memory_policy", linux.memory_policy.is_some()),
    ];
    match no.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(format!("it sets {name}: this release cannot")),
        None => Ok(()),
    }
}

/// The adjustment; a device without an owner is the container's user's.
pub(super) fn adjustment(
    theirs: &nri::ContainerAdjustment,
    user: &User,
) -> Result<Adjustment, String> {
    let mut edits = Edits { args: some(&theirs.args), ..Edits::default() };
    for (key, value) in &theirs.annotations {
        let (key, removed) = removal(key);
        // One that is taken away and set again sorts after its removal.
        edits.annotations.insert(key.to_owned(), (!removed).then(|| value.clone()));
    }
    for mount in &theirs.mounts {
        let (path, removed) = removal(&mount.destination);
        if removed {
            edits.unmounted.push(path.to_owned());
        } else {
            edits.mounts.push(self::mount(mount)?);
        }
    }
    for variable in &theirs.env {
        let (key, removed) = removal(&variable.key);
        if key.is_empty() || key.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(format!("it sets env \"{}\": that is no name", key.escape_default()));
        }
        if removed {
            edits.unset.push(key.to_owned());
        } else {
            edits.env.push(format!("{key}={}", variable.value));
        }
    }
    let hooks = theirs.hooks.clone().unwrap_or_default();
    edits.hooks = hooks.create_container.iter().map(hook).collect::<Result<_, _>>()?;
    edits.rlimits = theirs.rlimits.iter().map(rlimit).collect::<Result<_, _>>()?;
    let linux = theirs.linux.clone().unwrap_or_default();
    for device in &linux.devices {
        let (path, removed) = removal(&device.path);
        if removed {
            edits.no_devices.push(path.to_owned());
        } else {
            edits.devices.push(self::device(device, user)?);
        }
    }
    let limits = linux.resources.as_ref().map_or(Ok(Default::default()), resources::asked)?;
    Ok(Adjustment {
        edits,
        cdi: theirs.cdi_devices.iter().map(|device| device.name.clone()).collect(),
        resources: limits.0,
        oom_score_adj: linux.oom_score_adj.map(|score| score.value),
    })
}

fn some(args: &[String]) -> Option<Vec<String>> {
    (!args.is_empty()).then(|| args.to_vec())
}

fn absolute(field: &str, path: &str) -> Result<(), String> {
    let parts = !path.split('/').any(|part| part == "..");
    if path.starts_with('/') && parts && !path.contains('\0') && path.len() < 4_096 {
        return Ok(());
    }
    let path: String = path.chars().take(200).flat_map(char::escape_default).collect();
    Err(format!("it sets {field} to \"{path}\": allowed is an absolute path without .."))
}

fn mount(theirs: &nri::Mount) -> Result<EditMount, String> {
    absolute("mounts.destination", &theirs.destination)?;
    if theirs.r#type != "tmpfs" {
        absolute("mounts.source", &theirs.source)?;
    }
    let raw = RawMount {
        host_path: theirs.source.clone(),
        container_path: theirs.destination.clone(),
        options: theirs.options.clone(),
        r#type: theirs.r#type.clone(),
    };
    EditMount::parse("it asks for a mount that cannot be made", &raw).map_err(|no| no.to_string())
}

fn hook(theirs: &nri::Hook) -> Result<Hook, String> {
    absolute("hooks.path", &theirs.path)?;
    let args = some(&theirs.args).unwrap_or_else(|| vec![theirs.path.clone()]);
    let timeout = theirs.timeout.and_then(|timeout| u32::try_from(timeout.value).ok());
    Ok(Hook { path: theirs.path.clone(), args, env: theirs.env.clone(), timeout })
}

fn rlimit(theirs: &nri::PosixRlimit) -> Result<Rlimit, String> {
    let name = theirs.r#type.trim_start_matches("RLIMIT_").to_lowercase();
    rlimits::parse(&format!("{name}={}:{}", theirs.soft, theirs.hard))
        .map_err(|why| format!("it sets rlimits: {why}"))
}

fn device(theirs: &nri::LinuxDevice, user: &User) -> Result<HostDevice, String> {
    absolute("linux.devices.path", &theirs.path)?;
    let block = match theirs.r#type.as_str() {
        "b" => true,
        "c" | "u" => false,
        other => {
            let other = other.escape_default();
            return Err(format!("it sets linux.devices.type to \"{other}\": allowed is b, c or u"));
        }
    };
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_range| format!("it sets linux.devices: {value} is no device"))
    };
    Ok(HostDevice {
        path: theirs.path.clone(),
        block,
        major: number(theirs.major)?,
        minor: number(theirs.minor)?,
        mode: theirs.file_mode.map_or(0o666, |mode| mode.value) & 0o777,
        uid: theirs.uid.map_or(user.uid, |uid| uid.value),
        gid: theirs.gid.map_or(user.gid, |gid| gid.value),
        access: "rwm".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{adjustment, refuse};
    use shim_model::users::User;
    use shim_proto::nri_v1alpha1 as nri;

    #[test]
    fn what_is_understood_is_whole() {
        let mount = nri::Mount {
            destination: "/data/".into(),
            r#type: "bind".into(),
            source: "/srv".into(),
            options: vec!["rbind".into(), "ro".into()],
        };
        let removed = nri::Mount { destination: "-/dev/shm".into(), ..Default::default() };
        let device = nri::LinuxDevice {
            path: "/dev/x".into(),
            r#type: "c".into(),
            major: 1,
            minor: 3,
            ..Default::default()
        };
        let linux = nri::LinuxContainerAdjustment {
            devices: vec![device],
            oom_score_adj: Some(nri::OptionalInt { value: 7 }),
            ..Default::default()
        };
        let limit = nri::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 9, soft: 8 };
        let adjust = nri::ContainerAdjustment {
            annotations: [("-a".into(), String::new()), ("b".into(), "1".into())].into(),
            mounts: vec![removed, mount],
            rlimits: vec![limit],
            linux: Some(linux),
            ..Default::default()
        };
        refuse(&adjust).unwrap();
        let user = User { uid: 5, gid: 6, ..User::default() };
        let ours = adjustment(&adjust, &user).unwrap();
        assert_eq!(ours.edits.unmounted, ["/dev/shm"]);
        assert_eq!(ours.edits.mounts[0].container_path, "/data");
        assert_eq!(ours.edits.annotations["a"], None);
        assert_eq!(ours.edits.annotations["b"].as_deref(), Some("1"));
        let device = &ours.edits.devices[0];
        assert_eq!((device.uid, device.gid, device.mode), (5, 6, 0o666));
        let limit = ours.edits.rlimits[0];
        assert_eq!((limit.resource, limit.soft, limit.hard), (7, 8, 9));
        assert_eq!(ours.oom_score_adj, Some(7));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name() {
        let refused = |linux| {
            let adjust = nri::ContainerAdjustment { linux: Some(linux), ..Default::default() };
            refuse(&adjust).unwrap_err()
        };
        let path = "/elsewhere".to_owned();
        let linux = nri::LinuxContainerAdjustment { cgroups_path: path, ..Default::default() };
        assert!(refused(linux).contains("linux.cgroups_path"));
        let policy = Some(nri::LinuxSeccomp::default());
        let linux = nri::LinuxContainerAdjustment { seccomp_policy: policy, ..Default::default() };
        assert!(refused(linux).contains("linux.seccomp_policy"));
        let hook = nri::Hook { path: "/bin/x".into(), ..Default::default() };
        let hooks = Some(nri::Hooks { poststop: vec![hook], ..Default::default() });
        let adjust = nri::ContainerAdjustment { hooks, ..Default::default() };
        assert!(refuse(&adjust).unwrap_err().contains("hooks.poststop"));
    }

    #[test]
    fn paths_and_names_that_mean_something_else_are_refused() {
        let check =
            |adjust: nri::ContainerAdjustment| adjustment(&adjust, &User::default()).unwrap_err();
        let mount = |destination: &str, source: &str, option: &str| nri::ContainerAdjustment {
            mounts: vec![nri::Mount {
                destination: destination.into(),
                source: source.into(),
                options: vec![option.into()],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert!(check(mount("data", "/srv", "ro")).contains("mounts.destination"));
        assert!(check(mount("/a/../b", "/srv", "ro")).contains("mounts.destination"));
        assert!(check(mount("/a", "srv", "ro")).contains("mounts.source"));
        assert!(check(mount("/a", "/srv", "shared")).contains("mounts.options"));
        let env = vec![nri::KeyValue { key: "A=B".into(), value: String::new() }];
        assert!(check(nri::ContainerAdjustment { env, ..Default::default() }).contains("A=B"));
    }
}
