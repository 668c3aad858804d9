//! Runs one CNI plugin as the specification says: parameters in the environment, configuration on
//! standard input, result or error on standard output. Bounded in time and output; a plugin that hangs, or
//! that nobody waits for any more, is killed with everything it started.

use super::NetworkConfig;
use super::native::veth::POD_END;
use crate::error::RuntimeError;
use serde_json::Value;
use shim_model::cni::result::{self, Said};
use shim_model::limits;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// One operation of the specification.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `ADD`, `DEL`, `CHECK`, `STATUS`, `GC`, `VERSION`.
    pub verb: &'static str,
    /// The attachment; unset for verbs that are about the plugin itself.
    pub pod: Option<Pod<'a>>,
    /// Where plugins are.
    pub config: &'a NetworkConfig,
}

/// The attachment that a call is about.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// `CNI_CONTAINERID`.
    pub id: &'a str,
    /// `CNI_NETNS`; unset when it is gone.
    pub netns: Option<&'a Path>,
    /// `CNI_ARGS`.
    pub args: &'a [(String, String)],
}

/// A process group that is killed unless it is let go.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _gone = shim_sys::process::kill_group(leader);
        }
    }
}

impl Call<'_> {
    fn limit(&self) -> Duration {
        match self.verb {
            "STATUS" | "VERSION" => limits::CNI_STATUS,
            _ => limits::CNI_PLUGIN,
        }
    }
}

/// Runs a plugin; its result, or `null` where it prints none.
pub async fn run(call: &Call<'_>, typ: &str, input: &Value) -> Result<Value, RuntimeError> {
    ask(call, typ, input).await?.map_err(|said| broken(call, typ, said.text))
}

/// Runs a plugin; its result, or what it said when it failed.
pub async fn ask(
    call: &Call<'_>,
    typ: &str,
    input: &Value,
) -> Result<Result<Value, Said>, RuntimeError> {
    let program = find(call.config, typ).map_err(|why| broken(call, typ, why))?;
    let mut child =
        command(call, &program).spawn().map_err(|error| broken(call, typ, error.to_string()))?;
    let mut group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
    let after = call.limit();
    let Ok(output) = tokio::time::timeout(after, talk(&mut child, &input.to_string())).await else {
        drop(group);
        drop(child.kill().await);
        return Err(RuntimeError::Deadline { doing: doing(call, typ), after });
    };
    // It ended by itself: what it left running on purpose may stay.
    group.0 = None;
    if !output.success {
        return Ok(Err(result::failure(&output.stdout, &output.stderr)));
    }
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Ok(Value::Null));
    }
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.map(Ok).map_err(|error| broken(call, typ, format!("its result is no JSON: {error}")))
}

/// The program of a plugin, or where there is none.
pub fn find(config: &NetworkConfig, typ: &str) -> Result<PathBuf, String> {
    let found = config.bin_dirs.iter().map(|dir| dir.join(typ)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let dirs: Vec<_> = config.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        format!("there is no program {typ} in {}", dirs.join(", "))
    })
}

fn doing(call: &Call<'_>, typ: &str) -> String {
    format!("CNI plugin {typ} ({})", call.verb)
}

fn broken(call: &Call<'_>, typ: &str, why: String) -> RuntimeError {
    RuntimeError::Network { doing: doing(call, typ), why }
}

struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Gives a plugin its input and waits for its end.
async fn talk(child: &mut Child, input: &str) -> Output {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let streams = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A plugin that does not read its input still says why it failed.
                    let _closed_early = stdin.write_all(input.as_bytes()).await;
                }
            };
            tokio::join!(feed, bounded(stdout, &mut out), bounded(stderr, &mut err));
        };
        tokio::pin!(streams);
        tokio::select! {
            status = child.wait() => {
                // A child of the plugin may keep its output open for ever.
                drop(tokio::time::timeout(limits::CNI_DRAIN, &mut streams).await);
                status
            }
            () = &mut streams => child.wait().await,
        }
    };
    Output { success: status.is_ok_and(|status| status.success()), stdout: out, stderr: err }
}

fn command(call: &Call<'_>, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", call.verb)
        .env("CNI_PATH", std::env::join_paths(&call.config.bin_dirs).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(pod) = &call.pod {
        let args: Vec<_> = pod.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        command
            .env("CNI_CONTAINERID", pod.id)
            .env("CNI_NETNS", pod.netns.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", POD_END)
            .env("CNI_ARGS", args.join(";"));
    }
    command
}

/// Reads to the end and keeps what is allowed.
async fn bounded(stream: Option<impl tokio::io::AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0u8; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limits::CNI_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}
