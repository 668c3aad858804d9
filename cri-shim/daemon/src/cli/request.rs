//! What `wherry run` asks the daemon for, out of its options: a pod and its container. Whatever can be
//! refused without the image is refused here.

use super::client::OWN;
use super::failure::CliError;
use super::parse;
use super::run::{Network, Run};
use crate::config::environment;
use shim_proto::runtime_v1 as cri;
use std::collections::BTreeMap;
use std::path::Path;

/// The namespace that the command line's pods are listed in.
const NAMESPACE: &str = "wherry";

/// A pod and its container, ready to be asked for.
#[derive(Debug)]
pub(super) struct Draft {
    /// The name of both.
    pub(super) name: String,
    /// The pod.
    pub(super) pod: cri::PodSandboxConfig,
    /// The container.
    pub(super) container: cri::ContainerConfig,
}

impl Draft {
    /// Spells the options; `root` is the daemon's folder for durable data.
    pub(super) fn new(args: &Run, name: &str, root: &str) -> Result<Self, CliError> {
        let name = parse::checked_name(name)?;
        let (pod, container) = (pod(args, &name, root)?, container(args, &name)?);
        Ok(Self { name, pod, container })
    }
}

fn container(args: &Run, name: &str) -> Result<cri::ContainerConfig, CliError> {
    let (command, arguments) = match args.entrypoint.as_deref() {
        None => (Vec::new(), args.command.clone()),
        // As Docker: none at all, not even the image's.
        Some("") if args.command.is_empty() => {
            return Err(CliError::new("--entrypoint \"\": give a command behind the image"));
        }
        Some("") => (args.command.clone(), Vec::new()),
        Some(program) => (vec![program.to_owned()], args.command.clone()),
    };
    let envs = args.env.iter();
    let envs = envs.filter_map(|text| parse::env(text, environment::variable).transpose());
    let here = std::env::current_dir().ok();
    let mounts = args.volume.iter().map(|text| parse::volume(text, here.as_deref()));
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: args.image.clone(), ..cri::ImageSpec::default() }),
        command,
        args: arguments,
        working_dir: args.workdir.as_deref().map(parse::workdir).transpose()?.unwrap_or_default(),
        envs: envs.collect::<Result<_, _>>()?,
        mounts: mounts.collect::<Result<_, _>>()?,
        labels: [(OWN.to_owned(), "true".to_owned())].into(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(args)?),
            security_context: Some(security(args)?),
        }),
        log_path: "container.log".to_owned(),
        stdin: args.interactive,
        // In the background it stays open for whoever attaches.
        stdin_once: args.interactive && !args.detach,
        tty: args.tty,
        ..cri::ContainerConfig::default()
    })
}

fn resources(args: &Run) -> Result<cri::LinuxContainerResources, CliError> {
    let mut resources = cri::LinuxContainerResources::default();
    if let Some(memory) = &args.memory {
        resources.memory_limit_in_bytes = parse::memory(memory)?;
    }
    if let Some(cpus) = &args.cpus {
        (resources.cpu_period, resources.cpu_quota) = (100_000, parse::cpus(cpus)?);
    }
    Ok(resources)
}

fn security(args: &Run) -> Result<cri::LinuxContainerSecurityContext, CliError> {
    let mut security = cri::LinuxContainerSecurityContext {
        privileged: args.privileged,
        readonly_rootfs: args.read_only,
        seccomp: Some(cri::SecurityProfile::default()),
        namespace_options: Some(namespaces(args)),
        masked_paths: MASKED.iter().map(|path| (*path).to_owned()).collect(),
        readonly_paths: READONLY.iter().map(|path| (*path).to_owned()).collect(),
        ..cri::LinuxContainerSecurityContext::default()
    };
    if let Some(user) = &args.user {
        set_user(&mut security, user)?;
    }
    Ok(security)
}

/// What Docker hides of /proc and /sys.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What Docker makes read-only.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Numbers go as numbers; what has a name is looked up in the image by the daemon.
fn set_user(security: &mut cri::LinuxContainerSecurityContext, user: &str) -> Result<(), CliError> {
    let number = |text: &str| text.parse().ok().map(|value| cri::Int64Value { value });
    let (name, group) =
        user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    if name.is_empty() || group.is_some_and(str::is_empty) {
        return Err(CliError::new(format!(
            "-u {user}: allowed is USER or USER:GROUP, by names or numbers"
        )));
    }
    match (number(name), group.map(number)) {
        (Some(uid), None) => security.run_as_user = Some(uid),
        (Some(uid), Some(Some(gid))) => {
            (security.run_as_user, security.run_as_group) = (Some(uid), Some(gid));
        }
        (None, Some(Some(gid))) => {
            name.clone_into(&mut security.run_as_username);
            security.run_as_group = Some(gid);
        }
        (Some(_) | None, Some(None)) | (None, None) => {
            user.clone_into(&mut security.run_as_username);
        }
    }
    Ok(())
}

fn namespaces(args: &Run) -> cri::NamespaceOption {
    let network = if args.network == Network::Host {
        cri::NamespaceMode::Node
    } else {
        cri::NamespaceMode::Pod
    };
    cri::NamespaceOption {
        network: network.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..cri::NamespaceOption::default()
    }
}

fn pod(args: &Run, name: &str, root: &str) -> Result<cri::PodSandboxConfig, CliError> {
    if args.network != Network::Bridge && !args.publish.is_empty() {
        return Err(CliError::new(
            "-p needs a network of the container's own; use --network bridge",
        ));
    }
    let ports: Vec<cri::PortMapping> =
        args.publish.iter().map(|text| parse::port(text)).collect::<Result<_, _>>()?;
    let security = cri::LinuxSandboxSecurityContext {
        privileged: args.privileged,
        namespace_options: Some(namespaces(args)),
        ..cri::LinuxSandboxSecurityContext::default()
    };
    // Unlike that of any other request, also for the same name: the same request twice is one pod.
    let own = format!("{name}-{:016x}", parse::random());
    let log_directory = Path::new(root).join("logs").join(own).to_string_lossy().into_owned();
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            // The same for the same name: the daemon keeps names apart by all four together.
            uid: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: args.hostname.clone().unwrap_or_else(|| name.to_owned()),
        log_directory,
        annotations: annotations(args, &ports),
        port_mappings: ports,
        labels: [(OWN.to_owned(), "true".to_owned())].into(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    })
}

/// What the daemon understands on a pod of the command line, and what `ps` shows.
fn annotations(args: &Run, ports: &[cri::PortMapping]) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let mut set = |key: &str, value: String| annotations.insert(format!("wherry.dev/{key}"), value);
    set("ports", ports.iter().map(parse::shown_port).collect::<Vec<_>>().join(", "));
    if args.network == Network::None {
        set("network", "none".to_owned());
    }
    if args.rm {
        set("remove", "true".to_owned());
    }
    annotations
}
