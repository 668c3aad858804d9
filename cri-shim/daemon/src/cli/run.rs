//! `wherry run`: a pod with one container. Pulls what is missing, prints what the container says, ends
//! with its code; with -d prints its id. What is asked for is spelled in `request.rs`.

use super::client::{Client, is_own, short};
use super::failure::CliError;
use super::logs::{self, Vigil};
use super::reading::{Reading, Show};
use super::request::Draft;
use super::{image, manage, parse, print};
use clap::{Args, ValueEnum};
use prost::Message;
use shim_model::limits;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::pin::pin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::Code;

/// Arguments of `wherry run`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker run")]
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run in the background and print the id
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Remove it when it ends, and its log
    #[arg(long)]
    pub(super) rm: bool,
    /// Keep standard input open (not built yet)
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give it a terminal (not built yet)
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Publish a port: `[IP:]HOST:CONTAINER[/udp|sctp]`
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    pub(super) publish: Vec<String>,
    /// Mount a host path: `HOST:CONTAINER[:ro]`
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    pub(super) volume: Vec<String>,
    /// Set an environment variable; a bare NAME takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Name it
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Working folder
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,
    /// User and group, by names or numbers: `USER[:GROUP]`
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// Memory limit: 512m, 1g
    #[arg(short, long)]
    pub(super) memory: Option<String>,
    /// Processors: 1.5
    #[arg(long)]
    pub(super) cpus: Option<String>,
    /// Network
    #[arg(long, alias = "net", value_enum, default_value = "bridge")]
    pub(super) network: Network,
    /// Read-only root file system
    #[arg(long)]
    pub(super) read_only: bool,
    /// All of the host's power
    #[arg(long)]
    pub(super) privileged: bool,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,
    /// Host name in the container
    #[arg(long)]
    pub(super) hostname: Option<String>,
    /// Image
    pub(super) image: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

/// Which network a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Network {
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
    let root = client.own.info(own::InfoRequest {}).await?.into_inner().root_dir;
    let name = args.name.clone().unwrap_or_else(made_up);
    // Everything that can be refused is refused before anything is pulled.
    let draft = Draft::new(&args, &name, &root)?;
    if args.name.is_some() {
        is_free(&name, client).await?;
    }
    image::ensure(&args.image, client).await?;
    let mut signals = Signals::watch()?;
    let (draft, pod) = make_pod(&args, draft, &root, client).await?;
    match start(client, &pod, &draft, args.detach).await {
        Ok((id, None)) => print(&id).map(|()| 0),
        Ok((id, Some(vigil))) => {
            let code = attend(client, &id, vigil, &mut signals).await?;
            if args.rm {
                manage::remove_pod(client, &pod).await?;
            }
            Ok(u8::try_from(code & 0xff).unwrap_or(125))
        }
        Err(error) => {
            if let Err(left) = manage::remove_pod(client, &pod).await {
                left.tell();
            }
            Err(error)
        }
    }
}

/// Makes the pod. A name that was made up is made up again where somebody has it.
async fn make_pod(
    args: &Run,
    mut draft: Draft,
    root: &str,
    client: &mut Client,
) -> Result<(Draft, String), CliError> {
    for _ in 0..limits::MADE_UP_NAMES {
        let request = own::RunPodRequest { config: draft.pod.encode_to_vec() };
        match client.own.run_pod(request).await {
            Ok(made) => return Ok((draft, made.into_inner().pod_sandbox_id)),
            Err(status) if status.code() != Code::AlreadyExists => return Err(status.into()),
            Err(_taken) if args.name.is_some() => break,
            Err(_taken) => draft = Draft::new(args, &made_up(), root)?,
        }
    }
    Err(taken(&draft.name, "another container"))
}

/// Creates and starts the container; its id, and for the foreground the vigil over its end.
async fn start(
    client: &mut Client,
    pod: &str,
    draft: &Draft,
    detach: bool,
) -> Result<(String, Option<Vigil>), CliError> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(draft.container.clone()),
        sandbox_config: Some(draft.pod.clone()),
    };
    let id = client.runtime.create_container(request).await?.into_inner().container_id;
    // Before the start: a short life would else be over, and removed, before anybody looked.
    let vigil = if detach { None } else { Some(Vigil::open(client, &id).await?) };
    let request = cri::StartContainerRequest { container_id: id.clone() };
    let started = client.runtime.start_container(request).await;
    started.map_err(|status| CliError::of_start(&status))?;
    Ok((id, vigil))
}

/// Prints what it says until it ends; its code. Who asks us to end stops it, and kills it if he asks again;
/// what it says meanwhile is printed too.
async fn attend(
    client: &mut Client,
    id: &str,
    vigil: Vigil,
    signals: &mut Signals,
) -> Result<i32, CliError> {
    let mut reading = Reading::open(&client.status(id).await?.log_path, Show::default())?;
    let mut printing = pin!(logs::follow(&mut reading, vigil));
    let code = tokio::select! {
        printed = &mut printing => printed?,
        () = signals.asked() => {
            let (stopped, printed) = tokio::join!(stop(client, id, signals), printing);
            stopped?;
            printed?
        }
    };
    code.ok_or_else(|| CliError::new(format!("the container {} was removed", short(id))))
}

async fn stop(client: &Client, id: &str, signals: &mut Signals) -> Result<(), CliError> {
    let within = async |timeout| {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        client.runtime.clone().stop_container(request).await
    };
    tokio::select! {
        stopped = within(manage::GRACE) => stopped?,
        () = signals.asked() => within(0).await?,
    };
    Ok(())
}

/// What a person or a supervisor sends to end us.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they do not end us.
    fn watch() -> Result<Self, CliError> {
        let watch = |kind| {
            signal(kind).map_err(|error| CliError::new(format!("watch for signals: {error}")))
        };
        let interrupt = watch(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: watch(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Refuses a name that a container of the command line has.
async fn is_free(name: &str, client: &mut Client) -> Result<(), CliError> {
    let pods = client.pods().await?;
    let named = |pod: &&cri::PodSandbox| pod.metadata.as_ref().is_some_and(|own| own.name == name);
    match pods.iter().filter(|pod| is_own(pod)).find(named) {
        Some(pod) => Err(taken(name, &format!("pod {}", short(&pod.id)))),
        None => Ok(()),
    }
}

fn taken(name: &str, owner: &str) -> CliError {
    CliError::new(format!(
        "the name \"{name}\" belongs to {owner}; remove it with \"wherry rm {name}\", or take another"
    ))
}

/// A name that nobody chose.
fn made_up() -> String {
    parse::name(parse::random())
}
