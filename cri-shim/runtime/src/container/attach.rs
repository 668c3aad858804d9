//! Attach: a client joins the streams of a container's first process. The monitor gives it what is printed
//! from now on, in parallel to the log; what it says goes to the container's standard input. A container
//! with standard input talks with its clients, so one that reads slowly slows it down, as a terminal does;
//! any other container is only watched, and a watcher that is too slow is left behind.

use super::session::{End, Ended, Leave, Resize, Session};
use super::stream::{self, Input, Output};
use crate::error::RuntimeError;
use crate::monitors::{Later, Monitor, unexpected};
use crate::runtime::Runtime;
use crate::store::container::Container;
use shim_model::container::life::State;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::wire::{Attach, FromMonitor, ToMonitor};
use shim_sys::fd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::net::unix::pipe::Receiver;

/// Which streams of a container the caller wants.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the CRI's AttachRequest")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachStream {
    /// Its standard input; a container that was made without one takes none.
    pub stdin: bool,
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error; never with a terminal.
    pub stderr: bool,
    /// It has a terminal; must be what the container has.
    pub tty: bool,
}

/// How a client is attached.
#[derive(Clone, Copy, Debug)]
struct How {
    /// Before the container is started.
    early: bool,
    /// The container waits for a client that is slow.
    hold: bool,
}

impl Runtime {
    /// Joins a running container's streams.
    pub async fn attach(&self, id: &str, request: AttachStream) -> Result<Session, RuntimeError> {
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "attach to it"));
        }
        let how = How { early: false, hold: container.record.config.stdin };
        self.join(&container, request, how).await
    }

    /// Starts a created container with a client attached before it prints its first byte. It waits for
    /// this client, which is the one that it was started for. A size of zero is not known.
    pub async fn start_attached(
        &self,
        id: &str,
        request: AttachStream,
        size: (u16, u16),
    ) -> Result<Session, RuntimeError> {
        let container = self.0.store.container(id)?;
        if !matches!(container.state().life, State::Created {}) {
            return Err(container.wrong_state("created", "start"));
        }
        let session = self.join(&container, request, How { early: true, hold: true }).await?;
        *container.size.lock() = size;
        self.start_container(container.record.id.as_str()).await?;
        Ok(session)
    }

    async fn join(
        &self,
        container: &Arc<Container>,
        request: AttachStream,
        how: How,
    ) -> Result<Session, RuntimeError> {
        check(request, container.record.config.tty)?;
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("attach to a container in it")?;
        if !monitor.knows(ATTACHES) {
            let text = "the pod was made by an earlier version of wherry, whose monitor has no \
                        attach; make the pod again";
            return Err(RuntimeError::Unsupported(text.to_owned()));
        }
        let id = container.record.id.clone();
        let (How { early, hold }, AttachStream { stdout, stderr, .. }) = (how, request);
        let stdin = request.stdin && container.record.config.stdin;
        let (mut fds, input) = (Vec::new(), stdin.then(stream::writing).transpose()?);
        let input = input.map(|(pipe, end)| {
            fds.push(end);
            pipe
        });
        let (out, err) = (output(stdout, &mut fds)?, output(stderr, &mut fds)?);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let body =
            ToMonitor::Attach(Attach { container: id.clone(), stdin, stdout, stderr, early, hold });
        let begun = |number| {
            let order = ToMonitor::Detach { number, keep_stdin: false };
            (number, Leave::by(Arc::clone(&monitor), order))
        };
        let (answer, later, (number, leave)) = monitor.follow(body, &fds, begun).await?;
        match answer.body {
            FromMonitor::Done => {}
            refusal => return Err(refused(container, refusal)),
        }
        let passed_on = |pipe| Input::passed_on(pipe, Arc::clone(&monitor), number);
        Ok(Session {
            stdin: input.map(passed_on),
            stdout: out.map(Output::of),
            stderr: err.map(Output::of),
            resize: resize(container, &monitor),
            ended: Ended::new(leave, end(Arc::clone(container), later)),
        })
    }
}

/// The version of the wire that has attach.
const ATTACHES: u8 = 2;

/// What the CRI demands of the streams that are asked for (`cri-contract.md` 4.2 and 4.5).
fn check(request: AttachStream, tty: bool) -> Result<(), Refused> {
    if request.tty != tty {
        let allowed = format!("{tty}, as the container was made");
        return Err(Refused::new("tty", request.tty.to_string(), allowed));
    }
    if request.tty && request.stderr {
        return Err(Refused::new("stderr", "true", "false with a terminal, which is one stream"));
    }
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(Refused::new("stdout", "false", "at least one of stdin, stdout and stderr"));
    }
    Ok(())
}

/// A pipe for one output, as long as a client may be behind.
fn output(wanted: bool, fds: &mut Vec<OwnedFd>) -> Result<Option<Receiver>, RuntimeError> {
    if !wanted {
        return Ok(None);
    }
    let (pipe, end) = stream::reading()?;
    // Where that is refused, a client may be less far behind.
    let _the_usual_size = fd::set_pipe_size(&end, limits::ATTACH_BUFFER_BYTES);
    fds.push(end);
    Ok(Some(pipe))
}

fn resize(container: &Container, monitor: &Arc<Monitor>) -> Resize {
    if container.record.config.tty {
        Resize::there(Arc::clone(monitor), container.record.id.clone())
    } else {
        Resize::nothing()
    }
}

fn refused(container: &Container, answer: FromMonitor) -> RuntimeError {
    match answer {
        FromMonitor::Unknown => container.wrong_state("running", "attach to it"),
        FromMonitor::Failed(failure) => {
            RuntimeError::Attach { container: container.record.id.short().to_owned(), failure }
        }
        other => unexpected("attach to a container".to_owned(), other),
    }
}

/// The container's end, or that the client lost its place.
async fn end(container: Arc<Container>, mut later: Later) -> Result<End, RuntimeError> {
    tokio::select! {
        // First: a client that was left behind must know it, also if the container has ended since.
        biased;
        event = later.event() => match event {
            Some(_) => Err(RuntimeError::LeftBehind(container.record.id.short().to_owned())),
            // The monitor is gone, and its containers end.
            None => Ok(End { code: container.code().await }),
        },
        code = container.code() => Ok(End { code }),
    }
}

#[cfg(test)]
mod tests {
    use super::{AttachStream, check};

    #[test]
    fn a_request_asks_for_what_the_container_has() {
        let output = AttachStream { stdout: true, ..AttachStream::default() };
        assert!(check(output, false).is_ok());
        assert_eq!(check(output, true).unwrap_err().field, "tty");
        let both = AttachStream { stdout: true, stderr: true, tty: true, ..output };
        assert_eq!(check(both, true).unwrap_err().field, "stderr");
        assert_eq!(check(AttachStream::default(), false).unwrap_err().field, "stdout");
    }
}
