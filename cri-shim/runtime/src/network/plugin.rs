//! Runs one CNI plugin as the specification says: parameters in the environment, configuration on
//! standard input, result or error on standard output. Bounded in time and output; a plugin that hangs
//! is killed with everything it started.

use super::{Attachment, NetworkConfig};
use crate::error::RuntimeError;
use serde_json::Value;
use shim_model::cni::result;
use shim_model::limits;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// What every plugin of a chain is told.
#[derive(Debug)]
pub struct Call<'a> {
    /// `ADD`, `DEL`, `CHECK`.
    pub command: &'static str,
    /// The pod.
    pub attachment: &'a Attachment,
    /// Its namespace; `None` when it is gone.
    pub netns: Option<&'a Path>,
    /// Where plugins are.
    pub config: &'a NetworkConfig,
}

/// Runs a plugin; its result, or `null` where it prints none.
pub async fn run(call: &Call<'_>, typ: &str, input: &Value) -> Result<Value, RuntimeError> {
    let doing = format!("CNI plugin {typ} ({})", call.command);
    let broken = |why: String| RuntimeError::Network { doing: doing.clone(), why };
    let program = find(call.config, typ).ok_or_else(|| {
        let dirs: Vec<_> =
            call.config.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        broken(format!("there is no program {typ} in {}", dirs.join(", ")))
    })?;
    let mut child = command(call, &program).spawn().map_err(|error| broken(error.to_string()))?;
    let work = async {
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(stdin) = &mut stdin {
            // A plugin that does not read its input still says why it failed.
            let _closed_early = stdin.write_all(input.to_string().as_bytes()).await;
        }
        drop(stdin);
        let (stdout, stderr) = tokio::join!(bounded(stdout), bounded(stderr));
        (child.wait().await, stdout, stderr)
    };
    let Ok((status, stdout, stderr)) = tokio::time::timeout(limits::CNI_PLUGIN, work).await else {
        if let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = shim_sys::process::kill_group(group);
        }
        drop(child.kill().await);
        return Err(RuntimeError::Deadline { doing, after: limits::CNI_PLUGIN });
    };
    if !status.is_ok_and(|status| status.success()) {
        return Err(broken(result::failure(&stdout, &stderr)));
    }
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&stdout)
        .map_err(|error| broken(format!("its result is no JSON: {error}")))
}

fn find(config: &NetworkConfig, typ: &str) -> Option<PathBuf> {
    config.bin_dirs.iter().map(|dir| dir.join(typ)).find(|path| path.is_file())
}

fn command(call: &Call<'_>, program: &Path) -> Command {
    let meta = &call.attachment.metadata;
    let id = call.attachment.id.as_str();
    let clean = |text: &str| text.replace([';', '='], "_");
    // IgnoreUnknown first: a strict plugin reads in order.
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={}",
        clean(&meta.namespace),
        clean(&meta.name),
        clean(&meta.uid)
    );
    let path = std::env::join_paths(&call.config.bin_dirs).unwrap_or_default();
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", call.command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", call.netns.unwrap_or(Path::new("")))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Reads to the end and keeps what is allowed.
async fn bounded(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0u8; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limits::CNI_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}
