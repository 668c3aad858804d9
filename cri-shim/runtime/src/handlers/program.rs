//! Runs a program and waits for its end. A handler's: to ask it what it can do and what it knows of a
//! container (`state`), and to let it forget one (`delete --force`) that has ended, also where its monitor is
//! gone. Bounded in time and output;
//! the environment is fixed.

use crate::error::RuntimeError;
use serde_json::Value;
use shim_model::handler::choice::Handler;
use shim_model::handler::said;
use shim_model::id::ContainerId;
use shim_model::limits;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// What a program said, and whether it was content.
#[derive(Debug)]
pub struct Output {
    /// It ended with 0.
    pub success: bool,
    /// Its output.
    pub stdout: Vec<u8>,
    /// What it said of a failure.
    pub stderr: Vec<u8>,
}

/// Runs it.
pub async fn run(
    path: &Path,
    arguments: &[OsString],
    patience: Duration,
) -> Result<Output, RuntimeError> {
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(RuntimeError::file("run the program", path))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let Ok((stdout, stderr, status)) = tokio::time::timeout(patience, ended).await else {
        let doing = format!("run {} {arguments:?}", path.display());
        return Err(RuntimeError::Deadline { doing, after: patience });
    };
    Ok(Output { success: status.is_ok_and(|status| status.success()), stdout, stderr })
}

/// Reads to the end and keeps what is allowed.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0u8; 4 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limits::HANDLER_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}

/// What a program says of a container, as the OCI runtime specification has it (`runtime.md`, state).
pub async fn state(handler: &Handler, id: &ContainerId) -> Result<Value, String> {
    let output = order(handler, &["state", id.as_str()]).await;
    let output = output.map_err(|error| crate::error::chain(&error))?;
    let meant = serde_json::from_slice(&output.stdout).ok().filter(|_| output.success);
    let or = "it said nothing that can be understood";
    meant.ok_or_else(|| said::failure(&handler.name, "state", &output.stderr, or).step)
}

/// One verb for its containers here.
async fn order(handler: &Handler, verb: &[&str]) -> Result<Output, RuntimeError> {
    let mut arguments: Vec<OsString> = handler.options.iter().map(OsString::from).collect();
    arguments.extend(["--root".into(), handler.root.clone().into_os_string()]);
    arguments.extend(["--log-format", "json"].iter().chain(verb).map(OsString::from));
    run(&handler.path, &arguments, limits::HANDLER_COMMAND).await
}

/// Lets a program forget a container whose processes are gone; one that it does not know is done. Whatever
/// it says, its folder of the container is gone afterwards.
pub async fn forget(handler: &Handler, id: &ContainerId) -> Result<(), RuntimeError> {
    let folder = handler.root.join(id.as_str());
    if !folder.exists() {
        return Ok(());
    }
    let why = match order(handler, &["delete", "--force", id.as_str()]).await {
        Ok(output) if output.success && !folder.exists() => return Ok(()),
        Ok(output) => {
            said::failure(&handler.name, "delete", &output.stderr, "it left its folder").step
        }
        Err(error) => crate::error::chain(&error),
    };
    // Its processes were killed with their cgroup, so this is all that is left.
    tracing::warn!(
        id = id.short(),
        why,
        "a handler did not forget a container; its folder is removed"
    );
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file("remove", folder)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
