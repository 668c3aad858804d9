//! `wherry run`: a pod with one container. Pulls what is missing, puts our own streams on the container's,
//! ends with its code; with -d prints its id. What is asked for is spelled in `request.rs`.

use super::attach::Leaving;
use super::client::{Client, is_own, short};
use super::failure::CliError;
use super::keys::Keys;
use super::logs::{self, Vigil};
use super::reading::{Reading, Show};
use super::request::Draft;
use super::session::{Begun, Manners, Over, need_terminal, window};
use super::signals::Signals;
use super::{image, manage, parse, print};
use clap::{Args, ValueEnum};
use prost::Message;
use shim_model::limits;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Say;
use std::pin::pin;
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
    /// Pass on standard input; with -d keep it open for attach
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    #[command(flatten)]
    leaving: Leaving,
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
    /// OCI runtime that runs it: a handler of the daemon's configuration
    #[arg(long, value_name = "HANDLER")]
    pub(super) runtime: Option<String>,
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
    let keys = Keys::parse(&args.leaving.detach_keys)?;
    if args.interactive && args.tty && !args.detach {
        need_terminal()?;
    }
    let root = client.own.info(own::InfoRequest {}).await?.into_inner().root_dir;
    let name = args.name.clone().unwrap_or_else(made_up);
    // Everything that can be refused is refused before anything is pulled.
    let draft = Draft::new(&args, &name, &root)?;
    if args.name.is_some() {
        is_free(&name, client).await?;
    }
    image::ensure(&args.image, client).await?;
    let mut signals =
        if args.tty || args.leaving.sig_proxy { Signals::watch()? } else { Signals::none() };
    let (draft, pod) = make_pod(&args, draft, &root, client).await?;
    let begun = match start(&args, client, &pod, &draft).await {
        Ok((id, None)) => return print(&id).map(|()| 0),
        Ok((_, Some(begun))) => begun,
        Err(error) => {
            if let Err(left) = manage::remove_pod(client, &pod).await {
                left.tell();
            }
            return Err(error);
        }
    };
    match begun.attend(client, &args, keys, &mut signals).await? {
        Over::Ended(code) => {
            if args.rm {
                manage::remove_pod(client, &pod).await?;
            }
            Ok(u8::try_from(code & 0xff).unwrap_or(125))
        }
        Over::Left => Ok(0),
        Over::Signalled(code) => Ok(code),
        Over::Cut(cut) => Err(cut.why.into()),
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
        let request = own::RunPodRequest {
            config: draft.pod.encode_to_vec(),
            runtime_handler: args.runtime.clone().unwrap_or_default(),
        };
        match client.own.run_pod(request).await {
            Ok(made) => return Ok((draft, made.into_inner().pod_sandbox_id)),
            Err(status) if status.code() != Code::AlreadyExists => return Err(status.into()),
            Err(_taken) if args.name.is_some() => break,
            Err(_taken) => draft = Draft::new(args, &made_up(), root)?,
        }
    }
    Err(taken(&draft.name, "another container"))
}

/// Creates and starts the container; its id, and what the foreground goes on with.
async fn start(
    args: &Run,
    client: &mut Client,
    pod: &str,
    draft: &Draft,
) -> Result<(String, Option<Foreground>), CliError> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(draft.container.clone()),
        sandbox_config: Some(draft.pod.clone()),
    };
    let id = client.runtime.create_container(request).await?.into_inner().container_id;
    if !args.detach {
        let foreground = Foreground::begin(args, client, &id).await?;
        return Ok((id, Some(foreground)));
    }
    let request = cri::StartContainerRequest { container_id: id.clone() };
    let started = client.runtime.start_container(request).await;
    started.map_err(|status| CliError::of_start(&status))?;
    Ok((id, None))
}

/// A container that was started with our own streams on it, from its first byte on.
struct Foreground {
    id: String,
    log: String,
    vigil: Vigil,
    session: Begun,
}

impl Foreground {
    async fn begin(args: &Run, client: &mut Client, id: &str) -> Result<Self, CliError> {
        let (id, log) = (id.to_owned(), client.status(id).await?.log_path);
        // Before the start: a short life would else be over, and removed, before anybody looked.
        let vigil = Vigil::open(client, &id).await?;
        let begin = own::AttachBegin {
            container_id: id.clone(),
            stdin: args.interactive,
            stdout: true,
            stderr: true,
            start: true,
            size: window(),
        };
        let session = Begun::begin(client, Say::Attach(begin)).await?;
        Ok(Self { id, log, vigil, session })
    }

    /// Shows it until it ends, or until we leave. With a terminal, keys are the container's signals. Without
    /// one, who asks us to end stops it, and kills it if he asks again; what it says meanwhile is shown too.
    /// Other signals are passed on.
    async fn attend(
        self,
        client: &Client,
        args: &Run,
        keys: Keys,
        signals: &mut Signals,
    ) -> Result<Over, CliError> {
        let id = self.id.clone();
        let mut showing = pin!(self.show(client, args, keys));
        if args.tty {
            // The session's own watch ends it and gives the terminal back.
            return showing.await;
        }
        loop {
            let heard = tokio::select! {
                shown = &mut showing => return shown,
                heard = signals.next() => heard,
            };
            if heard.asks_to_end() {
                let (stopped, shown) = tokio::join!(stop(client, &id, signals), showing);
                return stopped.and(shown);
            }
            heard.pass_on(client, &id).await;
        }
    }

    /// On its streams; and where we were cut off from them, from its log, unless it needs our input.
    async fn show(self, client: &Client, args: &Run, keys: Keys) -> Result<Over, CliError> {
        let manners = Manners { keys: Some(keys), signals_to: None };
        let cut = match self.session.talk(client, manners).await? {
            Over::Cut(cut) if cut.is_behind() && args.interactive => {
                return Err(CliError::new(format!(
                    "what was printed was not read in time; the container runs on, and \"wherry logs {}\" has all",
                    short(&self.id)
                )));
            }
            Over::Cut(cut)
                if !args.interactive && (cut.is_behind() || logs::may_come_back(&cut.why)) =>
            {
                cut
            }
            over => return Ok(over),
        };
        let show = Show { shown: [cut.stdout, cut.stderr], ..Show::default() };
        let mut reading = Reading::open(&self.log, show)?;
        // The session's watch is over, and its signals must still end us.
        let mut ours = if args.tty { Signals::watch()? } else { Signals::none() };
        let code = tokio::select! {
            followed = logs::follow(&mut reading, self.vigil) => followed?,
            heard = ours.next() => return Ok(Over::Signalled(heard.code())),
        };
        code.map(Over::Ended)
            .ok_or_else(|| CliError::new(format!("the container {} was removed", short(&self.id))))
    }
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
