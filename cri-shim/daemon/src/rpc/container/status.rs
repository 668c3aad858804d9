//! Containers as entries of lists, as statuses and as the verbose map. Reads the published view of a
//! container only: no lock, no disk, no cgroup.

use super::{mounts, resources};
use crate::rpc::filter;
use shim_model::container::life::State;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use shim_runtime::store::container::{Container, ContainerState};

fn metadata(container: &Container) -> cri::ContainerMetadata {
    let known = &container.record.config.metadata;
    cri::ContainerMetadata { name: known.name.clone(), attempt: known.attempt }
}

fn state(life: &State) -> cri::ContainerState {
    match life {
        State::Creating {} | State::Created {} => cri::ContainerState::ContainerCreated,
        State::Running { .. } => cri::ContainerState::ContainerRunning,
        State::Exited { .. } => cri::ContainerState::ContainerExited,
    }
}

/// Name and labels, for statistics.
pub(crate) fn attributes(container: &Container) -> cri::ContainerAttributes {
    cri::ContainerAttributes {
        id: container.record.id.to_string(),
        metadata: Some(metadata(container)),
        labels: container.record.config.labels.clone(),
        annotations: container.record.config.annotations.clone(),
    }
}

/// A container as an entry of a list.
pub(crate) fn entry(container: &Container) -> cri::Container {
    let record = &container.record;
    cri::Container {
        id: record.id.to_string(),
        pod_sandbox_id: record.sandbox.to_string(),
        metadata: Some(metadata(container)),
        image: Some(mounts::spec(&record.config.image)),
        image_ref: record.image_ref.clone(),
        state: state(&container.state().life).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// True if a container passes a filter.
pub(crate) fn passes(container: &Container, wanted: &cri::ContainerFilter) -> bool {
    filter::id(&wanted.id, container.record.id.as_str())
        && filter::id(&wanted.pod_sandbox_id, container.record.sandbox.as_str())
        && filter::state(
            wanted.state.map(|wanted| wanted.state),
            state(&container.state().life).into(),
        )
        && filter::labels(&wanted.label_selector, &container.record.config.labels)
}

/// The status of a container.
pub(crate) fn status_of(
    runtime: &Runtime,
    container: &Container,
    known: &ContainerState,
) -> cri::ContainerStatus {
    let record = &container.record;
    let image_ref = |name: &str| {
        runtime
            .images()
            .find(name)
            .ok()
            .flatten()
            .map_or_else(String::new, |image| image.id.to_string())
    };
    let mut status = cri::ContainerStatus {
        id: record.id.to_string(),
        metadata: Some(metadata(container)),
        state: state(&known.life).into(),
        created_at: record.created_at,
        image: Some(cri::ImageSpec {
            image: record.image_name.clone(),
            ..mounts::spec(&record.config.image)
        }),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.iter().map(|mount| mounts::shown(mount, image_ref)).collect(),
        log_path: record.log_path.to_string_lossy().into_owned(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources::shown(&known.resources)),
            windows: None,
        }),
        user: Some(user(container)),
        stop_signal: signal(record.stop_signal.number()).into(),
        ..cri::ContainerStatus::default()
    };
    match &known.life {
        State::Creating {} | State::Created {} => {}
        State::Running { started, .. } => status.started_at = *started,
        State::Exited { started, finished, code, reason, message } => {
            (status.started_at, status.finished_at) = (*started, *finished);
            status.exit_code = *code;
            reason.word().clone_into(&mut status.reason);
            message.clone_into(&mut status.message);
        }
    }
    status
}

fn user(container: &Container) -> cri::ContainerUser {
    let user = &container.record.user;
    let groups = user.groups.iter().map(|gid| i64::from(*gid)).collect();
    cri::ContainerUser {
        linux: Some(cri::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: groups,
        }),
    }
}

/// A kernel number as the protocol's enum; the default where the protocol has no name for it.
fn signal(number: i32) -> cri::Signal {
    let of = |signal: cri::Signal| {
        let name = signal.as_str_name();
        let name = name.strip_prefix("SIGNAL_").unwrap_or(name);
        let name = name.replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-");
        shim_model::signal::Signal::parse(&name).map(shim_model::signal::Signal::number)
    };
    (1..=80)
        .filter_map(|n| cri::Signal::try_from(n).ok())
        .find(|signal| of(*signal) == Ok(number))
        .unwrap_or(cri::Signal::RuntimeDefault)
}
