//! Execs: a further process in a running container, with its whole security context. `exec_sync` reads
//! its output here, bounded, while the monitor waits for its end and keeps its deadline; `exec_stream`
//! hands its streams to the caller. If the caller leaves, everything it started is killed.

use super::create::read_plan;
use super::session::{self, End, Ended, Input, Leave, Output, Resize, Session};
use crate::error::RuntimeError;
use crate::monitors::{Monitor, unexpected};
use crate::runtime::Runtime;
use crate::store::container::Container;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::plan::{ExecPlan, exec};
use shim_model::wire::{Exec, ExecEnd, FromMonitor, ToMonitor};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{oneshot, watch};

/// A command whose streams the caller wants.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the CRI's ExecRequest")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecStream {
    /// Program and arguments.
    pub command: Vec<String>,
    /// It gets an input; else /dev/null.
    pub stdin: bool,
    /// Its output is wanted; else it goes nowhere.
    pub stdout: bool,
    /// Likewise its standard error; never with a terminal.
    pub stderr: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// What a command said and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, cut at `limits::EXEC_OUTPUT_BYTES`.
    pub stdout: Vec<u8>,
    /// Standard error, cut likewise (both together fit one message).
    pub stderr: Vec<u8>,
    /// Its code; 128 + n for death by signal n.
    pub code: i32,
}

impl Runtime {
    /// Runs a command in a container and waits for its end; `timeout` kills it with all it started.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        let (container, monitor, plan) = self.command(id, command)?;
        let (stdout, out) = session::reading()?;
        let (stderr, err) = session::reading()?;
        let timeout_nanos = timeout.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let body = Exec {
            container: container.record.id.clone(),
            plan,
            timeout: timeout_nanos,
            stdin: false,
        };
        let (number, answer) =
            monitor.ask(ToMonitor::Exec(Box::new(body)), &[out.as_fd(), err.as_fd()]).await?;
        drop((out, err));
        let mut guard = KillOnDrop { monitor: Some(Arc::clone(&monitor)), number };
        let (stdout, stderr) = (tokio::spawn(read(stdout)), tokio::spawn(read(stderr)));
        let answer = answer.await;
        guard.monitor = None;
        let end = ended(&container, answer.ok())?;
        let (stdout, stderr) = (stdout.await, stderr.await);
        if end.timed_out {
            let doing = format!(
                "run {:?} in container {}",
                command.first().map_or("", String::as_str),
                container.record.id.short()
            );
            return Err(RuntimeError::Deadline { doing, after: timeout.unwrap_or_default() });
        }
        let (mut stdout, mut stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
        share(&mut stdout, &mut stderr);
        Ok(ExecOutput { stdout, stderr, code: end.code })
    }

    /// Runs a command in a container with its streams in the caller's hands.
    pub async fn exec_stream(
        &self,
        id: &str,
        request: ExecStream,
    ) -> Result<Session, RuntimeError> {
        check(&request)?;
        let (container, monitor, plan) = self.command(id, &request.command)?;
        let (stdin, input) = request.stdin.then(session::writing).transpose()?.unzip();
        let (ended, over) = watch::channel(false);
        let (stdout, out) = output(request.stdout, &over)?;
        let (stderr, err) = output(request.stderr, &over)?;
        let body =
            Exec { container: container.record.id.clone(), plan, timeout: 0, stdin: request.stdin };
        let fds = [Some(&out), Some(&err), input.as_ref()];
        let fds: Vec<_> = fds.into_iter().flatten().map(AsFd::as_fd).collect();
        let (number, answer) = monitor.ask(ToMonitor::Exec(Box::new(body)), &fds).await?;
        let leave = Leave { monitor, order: ToMonitor::KillExec { number } };
        let heard = follow(answer, ended);
        let wait = async move {
            let end = super::exec::ended(&container, heard.await.ok().flatten())?;
            Ok(End { code: end.code })
        };
        let resize = Resize::nothing();
        let stdin = stdin.map(Input::pipe);
        Ok(Session { stdin, stdout, stderr, resize, ended: Ended::new(leave, wait) })
    }

    /// What every exec needs: the container, its monitor, the command's plan.
    fn command(
        &self,
        id: &str,
        command: &[String],
    ) -> Result<(Arc<Container>, Arc<Monitor>, ExecPlan), RuntimeError> {
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "run a command in it"));
        }
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("run a command in it")?;
        let folder = self.0.store.disk.container(&container.record.sandbox, &container.record.id);
        let plan = exec::exec(&read_plan(&folder)?, command)?;
        Ok((container, monitor, plan))
    }
}

/// What the CRI demands of the streams that are asked for (`cri-contract.md` 4.2).
fn check(request: &ExecStream) -> Result<(), Refused> {
    if request.tty && request.stderr {
        return Err(Refused::new("stderr", "true", "false with a terminal, which is one stream"));
    }
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(Refused::new("stdout", "false", "at least one of stdin, stdout and stderr"));
    }
    Ok(())
}

/// An output for the caller, if it is wanted, and what the command writes to.
fn output(
    wanted: bool,
    over: &watch::Receiver<bool>,
) -> Result<(Option<Output>, OwnedFd), RuntimeError> {
    if !wanted {
        return Ok((None, session::nowhere()?));
    }
    let (pipe, theirs) = session::reading()?;
    Ok((Some(Output::until(pipe, over.clone())), theirs))
}

/// Hears the monitor's answer whoever waits for it: outputs end because of it.
fn follow(
    answer: oneshot::Receiver<FromMonitor>,
    ended: watch::Sender<bool>,
) -> oneshot::Receiver<Option<FromMonitor>> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let answer = answer.await.ok();
        ended.send_replace(true);
        let _the_client_left = tell.send(answer);
    });
    told
}

/// Both outputs together fit one message; the longer one gives way.
fn share(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let over = stdout.len().saturating_add(stderr.len()).saturating_sub(limits::EXEC_OUTPUT_BYTES);
    let longer = if stdout.len() >= stderr.len() { stdout } else { stderr };
    let keep = longer.len().saturating_sub(over);
    longer.truncate(keep);
}

fn ended(container: &Container, answer: Option<FromMonitor>) -> Result<ExecEnd, RuntimeError> {
    match answer {
        Some(FromMonitor::ExecEnded(end)) => Ok(end),
        Some(FromMonitor::Unknown) => Err(container.wrong_state("running", "run a command in it")),
        Some(FromMonitor::Failed(failure)) => {
            Err(RuntimeError::Exec { container: container.record.id.short().to_owned(), failure })
        }
        Some(other) => Err(unexpected("run a command".to_owned(), other)),
        None => Err(RuntimeError::RoleGone {
            role: "the pod's monitor".to_owned(),
            doing: "run a command",
        }),
    }
}

/// Reads to the end, keeping only what is allowed, so that the command never blocks. The monitor ends
/// what would hold the pipe open, so this ends too.
async fn read(mut pipe: Receiver) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0u8; 16 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = limits::EXEC_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}

/// The caller left: nobody wants the command any more.
struct KillOnDrop {
    monitor: Option<Arc<Monitor>>,
    number: u64,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            let order = ToMonitor::KillExec { number: self.number };
            tokio::spawn(async move { drop(monitor.order(order, &[]).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::share;
    use shim_model::limits;

    #[test]
    fn both_outputs_together_fit_one_message() {
        let (mut out, mut err) = (vec![1u8; limits::EXEC_OUTPUT_BYTES], vec![2u8; 100]);
        share(&mut out, &mut err);
        assert_eq!((out.len() + err.len(), err.len()), (limits::EXEC_OUTPUT_BYTES, 100));
    }
}
