//! `wherry exec`: a command in a running container, its output as it comes, its code as ours. It ends with
//! us.

use super::client::Client;
use super::failure::CliError;
use super::session::{Begun, Manners, Over, need_terminal, window};
use clap::Args;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Say;

/// Arguments of `wherry exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Keep standard input open (not built yet)
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal (not built yet)
    #[arg(short, long)]
    tty: bool,
    /// Container
    container: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Runs it.
pub(crate) async fn exec(args: Exec, client: &mut Client) -> Result<u8, CliError> {
    if args.interactive && args.tty {
        need_terminal()?;
    }
    let found = client.find(&args.container).await?;
    found.must_run(&args.container)?;
    let begin = own::ExecBegin {
        container_id: found.container.id,
        command: args.command,
        stdin: args.interactive,
        stdout: true,
        stderr: !args.tty,
        tty: args.tty,
        size: window(),
    };
    let begun = Begun::begin(client, Say::Exec(begin)).await?;
    match begun.talk(client, Manners::default()).await? {
        Over::Ended(code) => Ok(u8::try_from(code & 0xff).unwrap_or(125)),
        Over::Signalled(code) => Ok(code),
        Over::Left => Err(CliError::new("the daemon ended the session")),
        Over::Cut(cut) => Err(cut.why.into()),
    }
}
