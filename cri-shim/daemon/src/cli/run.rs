//! `wherry run`: a pod with one container. Pulls what is missing, prints what the container says, ends
//! with its code; with -d prints its id.

use super::client::{Client, OWN, is_own, short};
use super::{CliError, image, logs, manage, parse, print, say};
use crate::config::environment;
use clap::{Args, ValueEnum};
use prost::Message;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::path::Path;
use std::pin::pin;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `wherry run`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker run")]
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Remove it when it ends
    #[arg(long)]
    rm: bool,
    /// Keep standard input open (not built yet)
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal (not built yet)
    #[arg(short, long)]
    tty: bool,
    /// Publish a port: `[IP:]HOST:CONTAINER[/udp]`
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    publish: Vec<String>,
    /// Mount a host path: `HOST:CONTAINER[:ro]`
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    volume: Vec<String>,
    /// Set an environment variable; a bare NAME takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Name it
    #[arg(long)]
    name: Option<String>,
    /// Working folder
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User: NAME, UID or UID:GID
    #[arg(short, long)]
    user: Option<String>,
    /// Memory limit: 512m, 1g
    #[arg(short, long)]
    memory: Option<String>,
    /// Processors: 1.5
    #[arg(long)]
    cpus: Option<String>,
    /// Network
    #[arg(long, value_enum, default_value = "bridge")]
    network: Network,
    /// Read-only root file system
    #[arg(long)]
    read_only: bool,
    /// All of the host's power
    #[arg(long)]
    privileged: bool,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Host name in the container
    #[arg(long)]
    hostname: Option<String>,
    /// Image
    image: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Which network a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Loopback only
    None,
    /// The node's own
    Host,
    /// One of its own
    Bridge,
}

/// Runs it.
pub(crate) async fn run(args: Run, client: &mut Client) -> Result<u8, CliError> {
    if args.tty || args.interactive {
        return Err(CliError::new("-i and -t come with the next release; run it without them"));
    }
    if args.detach && args.rm {
        return Err(CliError::new("--rm needs a run that waits for the end; use it without -d"));
    }
    let name = match &args.name {
        Some(name) => free_name(name, client).await?,
        None => parse::name(rand()),
    };
    let container = container_config(&args, &name)?;
    let pod = pod_config(&args, &name, client).await?;
    image::ensure(&args.image, client).await?;
    let made = own::RunPodRequest { config: pod.encode_to_vec() };
    let pod_id = client.own.run_pod(made).await?.into_inner().pod_sandbox_id;
    match start(client, &pod_id, &container, &pod).await {
        Ok(id) if args.detach => {
            print(&id);
            Ok(0)
        }
        Ok(id) => follow(&args, client, &id).await,
        Err(error) => {
            manage::remove_pod(client, &pod_id).await?;
            let _missing_is_done = std::fs::remove_dir_all(&pod.log_directory);
            Err(error)
        }
    }
}

async fn start(
    client: &mut Client,
    pod: &str,
    config: &cri::ContainerConfig,
    sandbox: &cri::PodSandboxConfig,
) -> Result<String, CliError> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config.clone()),
        sandbox_config: Some(sandbox.clone()),
    };
    let id = client.runtime.create_container(request).await?.into_inner().container_id;
    let started = client
        .runtime
        .start_container(cri::StartContainerRequest { container_id: id.clone() })
        .await;
    started.map_err(|status| CliError::of_start(&status))?;
    Ok(id)
}

/// Prints what it says until it ends. Ctrl-C and SIGTERM stop it; what it says meanwhile is printed too.
async fn follow(args: &Run, client: &mut Client, id: &str) -> Result<u8, CliError> {
    let mut stopper = client.clone();
    {
        let mut printing = pin!(logs::follow(client, id, logs::Show::default()));
        tokio::select! {
            printed = &mut printing => printed?,
            asked = interrupted() => {
                asked?;
                let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: 10 };
                let (stopped, printed) =
                    tokio::join!(stopper.runtime.stop_container(request), printing);
                stopped?;
                printed?;
            }
        }
    }
    let status = client.status(id).await?;
    if args.rm {
        let found = client.find(id).await?;
        manage::remove(client, &found).await?;
    }
    Ok(u8::try_from(status.exit_code & 0xff).unwrap_or(125))
}

/// Waits until somebody wants us to end.
async fn interrupted() -> Result<(), CliError> {
    let watch =
        |kind| signal(kind).map_err(|error| CliError::new(format!("watch for signals: {error}")));
    let (mut interrupt, mut terminate) =
        (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn container_config(args: &Run, name: &str) -> Result<cri::ContainerConfig, CliError> {
    let here = std::env::current_dir()
        .map_err(|error| CliError::new(format!("find the present folder: {error}")))?;
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
    let mut resources = cri::LinuxContainerResources::default();
    if let Some(memory) = &args.memory {
        resources.memory_limit_in_bytes = parse::memory(memory)?;
    }
    if let Some(cpus) = &args.cpus {
        (resources.cpu_period, resources.cpu_quota) = (100_000, parse::cpus(cpus)?);
    }
    let (command, arguments) = match &args.entrypoint {
        Some(program) => (vec![program.clone()], args.command.clone()),
        None => (Vec::new(), args.command.clone()),
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: args.image.clone(), ..cri::ImageSpec::default() }),
        command,
        args: arguments,
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs: args
            .env
            .iter()
            .filter_map(|text| parse::env(text, environment::variable).transpose())
            .collect::<Result<_, _>>()?,
        mounts: args
            .volume
            .iter()
            .map(|text| parse::volume(text, &here))
            .collect::<Result<_, _>>()?,
        labels: [(OWN.to_owned(), "true".to_owned())].into(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security),
        }),
        log_path: "container.log".to_owned(),
        ..cri::ContainerConfig::default()
    })
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

fn set_user(security: &mut cri::LinuxContainerSecurityContext, user: &str) -> Result<(), CliError> {
    let refuse = || CliError::new(format!("-u {user}: allowed is NAME, UID or UID:GID"));
    let (name, group) =
        user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    match name.parse::<i64>() {
        Ok(value) => security.run_as_user = Some(cri::Int64Value { value }),
        Err(_) => name.clone_into(&mut security.run_as_username),
    }
    if let Some(group) = group {
        let value = group.parse::<i64>().map_err(|_name| refuse())?;
        security.run_as_group = Some(cri::Int64Value { value });
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

async fn pod_config(
    args: &Run,
    name: &str,
    client: &mut Client,
) -> Result<cri::PodSandboxConfig, CliError> {
    if args.network != Network::Bridge && !args.publish.is_empty() {
        return Err(CliError::new("-p needs --network bridge"));
    }
    let info = client.own.info(own::InfoRequest {}).await?.into_inner();
    let uid = format!("{:016x}{:016x}", rand(), rand());
    let log_directory =
        Path::new(&info.root_dir).join("logs").join(&uid).to_string_lossy().into_owned();
    let mut annotations = std::collections::BTreeMap::new();
    if args.network == Network::None {
        annotations.insert("wherry.dev/network".to_owned(), "none".to_owned());
    }
    annotations.insert("wherry.dev/ports".to_owned(), args.publish.join(", "));
    let security = cri::LinuxSandboxSecurityContext {
        privileged: args.privileged,
        namespace_options: Some(namespaces(args)),
        ..cri::LinuxSandboxSecurityContext::default()
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid,
            namespace: "wherry".to_owned(),
            attempt: 0,
        }),
        hostname: args.hostname.clone().unwrap_or_else(|| name.to_owned()),
        log_directory,
        port_mappings: args
            .publish
            .iter()
            .map(|text| parse::port(text))
            .collect::<Result<_, _>>()?,
        labels: [(OWN.to_owned(), "true".to_owned())].into(),
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    })
}

/// A name that is usable and that no container of the command line has.
async fn free_name(name: &str, client: &mut Client) -> Result<String, CliError> {
    let name = checked_name(name)?;
    let pods = client.pods().await?;
    let taken = pods
        .iter()
        .find(|pod| is_own(pod) && pod.metadata.as_ref().is_some_and(|known| known.name == name));
    match taken {
        Some(pod) => Err(CliError::new(format!(
            "the name \"{name}\" belongs to pod {}; remove it with \"wherry rm {name}\", or take another",
            short(&pod.id)
        ))),
        None => Ok(name),
    }
}

fn checked_name(name: &str) -> Result<String, CliError> {
    let legal = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if legal {
        return Ok(name.to_owned());
    }
    say("a name is 1 to 63 letters, digits, dashes, dots and underscores");
    Err(CliError::new(format!("--name {name} is not usable")))
}

/// A number that no other call gets: from the address space layout and the clock, for names only.
fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
