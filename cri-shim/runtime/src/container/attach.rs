//! Attach: a client joins the streams of a running container's first process. The monitor gives it what
//! is printed from now on; what it says goes to the container's standard input.

use super::session::Session;
use crate::error::RuntimeError;
use crate::runtime::Runtime;
use shim_model::kind::Refused;

/// Which streams of a container the caller wants.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the CRI's AttachRequest")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachStream {
    /// Its standard input.
    pub stdin: bool,
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error; never with a terminal.
    pub stderr: bool,
    /// It has a terminal; must be what the container has.
    pub tty: bool,
}

impl Runtime {
    /// Joins a running container's streams.
    #[expect(clippy::unused_async, reason = "asks the monitor in the next step")]
    pub async fn attach(&self, id: &str, request: AttachStream) -> Result<Session, RuntimeError> {
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "attach to it"));
        }
        check(request, container.record.config.tty)?;
        Err(RuntimeError::Unsupported("attach is not built yet".to_owned()))
    }
}

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
