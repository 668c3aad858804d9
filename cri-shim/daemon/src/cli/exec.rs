//! `wherry exec`: a command in a running container; its output when it ended, its code as ours.

use super::client::Client;
use super::failure::CliError;
use clap::Args;
use shim_proto::runtime_v1 as cri;
use std::io::Write;

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
    if args.tty || args.interactive {
        return Err(CliError::new(
            "-i and -t come with the next release; run the command without them",
        ));
    }
    let found = client.find(&args.container).await?;
    if found.container.state() != cri::ContainerState::ContainerRunning {
        let name = &args.container;
        return Err(CliError::new(format!(
            "container \"{name}\" does not run; start it with \"wherry start {name}\""
        )));
    }
    let request =
        cri::ExecSyncRequest { container_id: found.container.id, cmd: args.command, timeout: 0 };
    let answer = client
        .runtime
        .exec_sync(request)
        .await
        .map_err(|status| CliError::of_start(&status))?
        .into_inner();
    let written = std::io::stdout()
        .write_all(&answer.stdout)
        .and_then(|()| std::io::stdout().flush())
        .and_then(|()| std::io::stderr().write_all(&answer.stderr));
    written.map_err(|error| CliError::of_output(&error))?;
    Ok(u8::try_from(answer.exit_code & 0xff).unwrap_or(125))
}
