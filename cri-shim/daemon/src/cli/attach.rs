//! `wherry attach`: our own streams on those of a running container, until it ends or we leave.

use super::client::Client;
use super::failure::CliError;
use super::keys::Keys;
use super::session::{Begun, Manners, Over};
use clap::Args;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Say;

/// Arguments of `wherry attach`.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Pass nothing on to its standard input
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    leaving: Leaving,
    /// Container
    container: String,
}

/// How a session with a container is left.
#[derive(Clone, Debug, Args)]
pub(crate) struct Leaving {
    /// Keys that leave a container with a terminal, and leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Let signals act on a container without a terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) sig_proxy: bool,
}

/// Attaches.
pub(crate) async fn attach(args: &Attach, client: &mut Client) -> Result<u8, CliError> {
    let keys = Keys::parse(&args.leaving.detach_keys)?;
    let found = client.find(&args.container).await?;
    found.must_run(&args.container)?;
    let id = found.container.id;
    let begin = own::AttachBegin {
        container_id: id.clone(),
        stdin: !args.no_stdin,
        stdout: true,
        stderr: true,
        start: false,
        size: None,
    };
    let manners =
        Manners { keys: Some(keys), signals_to: args.leaving.sig_proxy.then(|| id.clone()) };
    let begun = Begun::begin(client, Say::Attach(begin)).await?;
    match begun.talk(client, manners).await? {
        Over::Ended(code) => Ok(u8::try_from(code & 0xff).unwrap_or(125)),
        Over::Left => Ok(0),
        Over::Signalled(code) => Ok(code),
        Over::Cut(cut) if cut.is_behind() => Err(CliError::new(format!(
            "what was printed was not read in time; the container runs on, and \"wherry logs {}\" has all",
            args.container
        ))),
        Over::Cut(cut) => Err(cut.why.into()),
    }
}
