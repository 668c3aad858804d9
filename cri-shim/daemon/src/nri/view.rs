//! Pods and containers as NRI's messages. Pure: what is known in, messages out.

use super::resources;
use shim_model::container::life::State;
use shim_model::sandbox::config::Profile;
use shim_proto::nri_v1alpha1 as nri;
use shim_runtime::nri::view::{ContainerView, PodView};
use std::collections::BTreeMap;

/// A pod.
pub(super) fn pod(view: &PodView) -> nri::PodSandbox {
    let record = &view.pod.record;
    let (config, facts) = (&record.config, &view.facts);
    let limits =
        |now: &Option<_>, first: &Option<_>| now.as_ref().or(first.as_ref()).map(resources::shown);
    let network = view.netns.as_ref().map(|pin| nri::LinuxNamespace {
        r#type: "network".to_owned(),
        path: pin.display().to_string(),
    });
    let linux = nri::LinuxPodSandbox {
        pod_overhead: limits(&facts.overhead, &config.overhead),
        pod_resources: limits(&facts.resources, &config.resources),
        cgroup_parent: config.cgroup_parent.clone(),
        cgroups_path: record.cgroup.to_string(),
        namespaces: network.into_iter().collect(),
        resources: None,
    };
    // The monitor stands in for a first process where the pod has none of its own.
    let process = facts.pod_init.or(facts.monitor).map_or(0, |process| process.pid);
    nri::PodSandbox {
        id: record.id.to_string(),
        name: config.metadata.name.clone(),
        uid: config.metadata.uid.clone(),
        namespace: config.metadata.namespace.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: config.runtime_handler.clone(),
        linux: Some(linux),
        pid: u32::try_from(process).unwrap_or_default(),
        ips: facts.ips.iter().map(ToString::to_string).collect(),
    }
}

/// A container.
pub(super) fn container(view: &ContainerView) -> nri::Container {
    let (record, spec) = (&view.record, &view.built.spec);
    let config = &record.config;
    let process = spec.process().as_ref();
    let life = life(&view.state.life);
    let annotations = spec.annotations().clone().unwrap_or_default();
    let devices = config.cdi_devices.iter();
    nri::Container {
        id: record.id.to_string(),
        pod_sandbox_id: record.sandbox.to_string(),
        name: config.metadata.name.clone(),
        labels: config.labels.clone(),
        annotations: annotations.into_iter().collect(),
        args: process.and_then(|process| process.args().clone()).unwrap_or_default(),
        env: process.and_then(|process| process.env().clone()).unwrap_or_default(),
        mounts: mounts(view),
        hooks: hooks(view),
        linux: Some(linux(view)),
        rlimits: rlimits(view),
        cdi_devices: devices.map(|name| nri::CdiDevice { name: name.clone() }).collect(),
        user: Some(nri::User {
            uid: record.user.uid,
            gid: record.user.gid,
            additional_gids: record.user.groups.clone(),
        }),
        image: Some(nri::Image {
            name: record.image_name.clone(),
            digest: digest(&record.image_ref),
            config_digest: record.image_id.clone(),
        }),
        created_at: record.created_at,
        ..life
    }
}

/// `host/path@sha256:…` → `sha256:…`.
fn digest(reference: &str) -> String {
    reference.rsplit_once('@').map_or(reference, |(_, digest)| digest).to_owned()
}

/// State, times, exit.
fn life(life: &State) -> nri::Container {
    let state = |state: nri::ContainerState| i32::from(state);
    match life {
        State::Creating {} => nri::Container::default(),
        State::Created {} => nri::Container {
            state: state(nri::ContainerState::ContainerCreated),
            ..nri::Container::default()
        },
        State::Running { process, started } => nri::Container {
            state: state(nri::ContainerState::ContainerRunning),
            pid: u32::try_from(process.pid).unwrap_or_default(),
            started_at: *started,
            ..nri::Container::default()
        },
        State::Exited { started, finished, code, reason, message } => nri::Container {
            state: state(nri::ContainerState::ContainerStopped),
            started_at: *started,
            finished_at: *finished,
            exit_code: *code,
            status_reason: reason.word().to_owned(),
            status_message: message.clone(),
            ..nri::Container::default()
        },
    }
}

fn mounts(view: &ContainerView) -> Vec<nri::Mount> {
    let mounts = view.built.spec.mounts().iter().flatten();
    mounts
        .map(|mount| nri::Mount {
            destination: mount.destination().display().to_string(),
            r#type: mount.typ().clone().unwrap_or_default(),
            source: mount.source().as_ref().map_or_else(String::new, |s| s.display().to_string()),
            options: mount.options().clone().unwrap_or_default(),
        })
        .collect()
}

fn hooks(view: &ContainerView) -> Option<nri::Hooks> {
    let hook = |hook: &shim_model::edits::Hook| nri::Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.map(|value| nri::OptionalInt { value: i64::from(value) }),
    };
    let create_container: Vec<_> = view.built.hooks.iter().map(hook).collect();
    let some = !create_container.is_empty();
    some.then(|| nri::Hooks { create_container, ..nri::Hooks::default() })
}

fn rlimits(view: &ContainerView) -> Vec<nri::PosixRlimit> {
    let limits = view.built.rlimits.iter().filter_map(shim_model::rlimits::oci);
    limits
        .map(|limit| nri::PosixRlimit {
            r#type: limit.typ().to_string(),
            hard: limit.hard(),
            soft: limit.soft(),
        })
        .collect()
}

fn linux(view: &ContainerView) -> nri::LinuxContainer {
    let config = &view.record.config;
    let linux = view.built.spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let devices = linux.and_then(|linux| linux.devices().clone()).unwrap_or_default();
    let sysctl = linux.and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    // The OCI spec's own words, which its types print in short.
    let word = |short: String| match short.as_str() {
        "mnt" => "mount".to_owned(),
        "net" => "network".to_owned(),
        _ => short,
    };
    nri::LinuxContainer {
        namespaces: namespaces
            .iter()
            .map(|one| nri::LinuxNamespace {
                r#type: word(one.typ().to_string()),
                path: one.path().as_ref().map_or_else(String::new, |p| p.display().to_string()),
            })
            .collect(),
        devices: devices
            .iter()
            .map(|device| nri::LinuxDevice {
                path: device.path().display().to_string(),
                r#type: device.typ().as_str().to_owned(),
                major: device.major(),
                minor: device.minor(),
                file_mode: device.file_mode().map(|value| nri::OptionalFileMode { value }),
                uid: device.uid().map(|value| nri::OptionalUInt32 { value }),
                gid: device.gid().map(|value| nri::OptionalUInt32 { value }),
            })
            .collect(),
        resources: Some(resources::shown(&view.state.resources)),
        oom_score_adj: Some(nri::OptionalInt { value: config.resources.oom_score_adj }),
        cgroups_path: view.record.cgroup.to_string(),
        seccomp_profile: config.seccomp.as_ref().map(profile),
        sysctl: sysctl.into_iter().collect::<BTreeMap<_, _>>(),
        ..nri::LinuxContainer::default()
    }
}

fn profile(profile: &Profile) -> nri::SecurityProfile {
    use nri::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile {
        Profile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Profile::Unconfined => (ProfileType::Unconfined, String::new()),
        Profile::Localhost(path) => (ProfileType::Localhost, path.clone()),
    };
    nri::SecurityProfile { profile_type: i32::from(kind), localhost_ref }
}
