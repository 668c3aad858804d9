//! Execs: a further process in a running container, with its whole security context. `exec_sync` reads
//! its output here, bounded, while the monitor waits for its end and keeps its deadline; `exec_stream`
//! hands its streams to the caller. If the caller leaves, everything it started is killed.

use super::create::read_plan;
use super::handled;
use super::session::{End, Ended, Leave, Resize, Session};
use super::stream::{self, Input, Output};
use crate::error::RuntimeError;
use crate::monitors::{Answer, Later, Monitor, unexpected};
use crate::runtime::Runtime;
use crate::store::container::Container;
use shim_model::handler::order::ExecBy;
use shim_model::id::ContainerId;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::plan::exec;
use shim_model::wire::{Exec, ExecEnd, ExecStreamed, FromMonitor, ToMonitor};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
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
        let (container, monitor, folder) = self.commanded(id)?;
        let (stdout, out) = stream::reading()?;
        let (stderr, err) = stream::reading()?;
        let timeout_nanos = timeout.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let own = container.record.id.clone();
        let body = if self.is_handled(&container) {
            let process = handled::process(&folder, command, None)?;
            ToMonitor::ExecBy(Box::new(ExecBy {
                container: own,
                process,
                waited: true,
                timeout: timeout_nanos,
                stdin: false,
                stdout: true,
                stderr: true,
                tty: false,
                size: (0, 0),
            }))
        } else {
            let plan = exec::exec(&read_plan(&folder)?, command)?;
            let body = Exec { container: own, plan, timeout: timeout_nanos, stdin: false };
            ToMonitor::Exec(Box::new(body))
        };
        let (number, answer) = monitor.ask(body, &[out.as_fd(), err.as_fd()]).await?;
        drop((out, err));
        let leave = Leave::by(Arc::clone(&monitor), ToMonitor::KillExec { number });
        let (stdout, stderr) = (tokio::spawn(read(stdout)), tokio::spawn(read(stderr)));
        let answer = answer.await;
        leave.done();
        let end = ended(&container, answer.ok().map(|answer| answer.body))?;
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

    /// Runs a command in a container with its streams in the caller's hands. Comes back once its program
    /// is executed.
    pub async fn exec_stream(
        &self,
        id: &str,
        request: ExecStream,
    ) -> Result<Session, RuntimeError> {
        self.exec_sized(id, request, (0, 0)).await
    }

    /// Likewise, with a terminal of this many columns and rows; zero = not known.
    pub async fn exec_sized(
        &self,
        id: &str,
        request: ExecStream,
        size: (u16, u16),
    ) -> Result<Session, RuntimeError> {
        check(&request)?;
        let (container, monitor, folder) = self.commanded(id)?;
        if !monitor.knows(STREAMED) {
            return Err(RuntimeError::Unsupported(TOO_OLD.to_owned()));
        }
        let (ended, over) = watch::channel(false);
        let (ours, fds) = Pipes::of(&request)?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let handled = self.is_handled(&container);
        let body = streamed((&container.record.id, handled), &folder, &request, size)?;
        let kill = |number| Leave::by(Arc::clone(&monitor), ToMonitor::KillExec { number });
        let (answer, later, leave) = monitor.follow(body, &fds, kill).await?;
        let Answer { body: FromMonitor::ExecBegan, descriptor: master } = answer else {
            leave.done();
            return Err(not_begun(&container, answer.body));
        };
        let wait = follow(container, later, ended);
        let mut session = Session {
            stdin: ours.stdin,
            stdout: ours.stdout.map(|pipe| Output::until(pipe, over.clone())),
            stderr: ours.stderr.map(|pipe| Output::until(pipe, over.clone())),
            resize: Resize::nothing(),
            ended: Ended::new(leave, wait),
        };
        if let Some(master) = master {
            let terminal = stream::terminal(master)?;
            let shown = Output::shown(Arc::clone(&terminal), over)?;
            session.stdout = wanted(request.stdout, shown);
            session.stdin = request.stdin.then(|| Input::terminal(Arc::clone(&terminal)));
            session.resize = Resize::here(terminal);
        }
        Ok(session)
    }

    fn is_handled(&self, container: &Container) -> bool {
        let pod = self.0.store.pod(container.record.sandbox.as_str());
        pod.is_ok_and(|pod| pod.record.handler.is_some())
    }

    /// What every exec needs: the container, its monitor, the folder with its plan.
    fn commanded(&self, id: &str) -> Result<(Arc<Container>, Arc<Monitor>, PathBuf), RuntimeError> {
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "run a command in it"));
        }
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("run a command in it")?;
        let folder = self.0.store.disk.container(&container.record.sandbox, &container.record.id);
        Ok((container, monitor, folder))
    }
}

/// What the monitor is asked for a command whose streams the caller has.
fn streamed(
    (id, handled): (&ContainerId, bool),
    folder: &Path,
    request: &ExecStream,
    size: (u16, u16),
) -> Result<ToMonitor, RuntimeError> {
    let ExecStream { command, stdin, stdout, stderr, tty } = request;
    let (stdin, stdout, stderr, tty) = (*stdin, *stdout, *stderr, *tty);
    let container = id.clone();
    if handled {
        let process = handled::process(folder, command, tty.then_some(size))?;
        let (waited, timeout) = (false, 0);
        let body = ExecBy { container, process, waited, timeout, stdin, stdout, stderr, tty, size };
        return Ok(ToMonitor::ExecBy(Box::new(body)));
    }
    let plan = exec::exec(&read_plan(folder)?, command)?;
    let plan = if tty { exec::with_terminal(plan, size) } else { plan };
    let body = ExecStreamed { container, plan, stdin, stdout, stderr, tty };
    Ok(ToMonitor::ExecStreamed(Box::new(body)))
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

/// The caller's ends of the pipes that a command without a terminal gets.
#[derive(Debug, Default)]
struct Pipes {
    stdin: Option<Input>,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

impl Pipes {
    /// Those that are asked for, and the command's ends in the same order.
    fn of(request: &ExecStream) -> Result<(Self, Vec<OwnedFd>), RuntimeError> {
        let (mut ours, mut theirs) = (Self::default(), Vec::new());
        if request.tty {
            return Ok((ours, theirs));
        }
        if request.stdin {
            let (pipe, end) = stream::writing()?;
            ours.stdin = Some(Input::pipe(pipe));
            theirs.push(end);
        }
        let mut output = |wanted: bool| {
            let pipe = wanted.then(stream::reading).transpose()?;
            Ok::<_, RuntimeError>(pipe.map(|(pipe, end)| {
                theirs.push(end);
                pipe
            }))
        };
        (ours.stdout, ours.stderr) = (output(request.stdout)?, output(request.stderr)?);
        Ok((ours, theirs))
    }
}

/// What a terminal shows, for the caller or for nobody: unread, it would stop the command.
fn wanted(stdout: bool, mut shown: Output) -> Option<Output> {
    if stdout {
        return Some(shown);
    }
    tokio::spawn(async move { drop(tokio::io::copy(&mut shown, &mut tokio::io::sink()).await) });
    None
}

/// Hears how a command ended whoever waits for it: its outputs end because of it.
fn follow(
    container: Arc<Container>,
    mut later: Later,
    ended: watch::Sender<bool>,
) -> impl Future<Output = Result<End, RuntimeError>> + Send + 'static {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let end = match later.event().await {
            Some(FromMonitor::ExecOver { end, .. }) => Ok(End { code: end.code }),
            Some(other) => Err(not_begun(&container, other)),
            None => Err(gone()),
        };
        ended.send_replace(true);
        let _the_client_left = tell.send(end);
    });
    async move { told.await.unwrap_or(Err(RuntimeError::Lost("an exec"))) }
}

/// The version of the wire that has streamed execs.
const STREAMED: u8 = 2;
/// What whoever wants one of an older monitor is told.
const TOO_OLD: &str = "the pod was made by an earlier version of wherry, whose monitor has no streams for \
                       commands; make the pod again";

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
        Some(other) => Err(not_begun(container, other)),
        None => Err(gone()),
    }
}

fn not_begun(container: &Container, answer: FromMonitor) -> RuntimeError {
    match answer {
        FromMonitor::Unknown => container.wrong_state("running", "run a command in it"),
        FromMonitor::Failed(failure) => {
            RuntimeError::Exec { container: container.record.id.short().to_owned(), failure }
        }
        other => unexpected("run a command".to_owned(), other),
    }
}

fn gone() -> RuntimeError {
    RuntimeError::RoleGone { role: "the pod's monitor".to_owned(), doing: "run a command" }
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
