//! `Exec`, `Attach` and `PortForward`: refuse what can never work, and answer with a URL of the streaming
//! server, where the client comes for its streams (`cri-contract.md` 4.2). Nothing runs before it came.

use crate::error::DaemonError;
use crate::streaming::server::Server;
use crate::streaming::session::Streams;
use crate::streaming::token::Ask;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;

/// `Exec`.
pub(crate) fn exec(
    runtime: &Runtime,
    server: &Server,
    request: cri::ExecRequest,
) -> Result<cri::ExecResponse, DaemonError> {
    let cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
    let streams = checked(Streams { stdin, stdout, stderr, tty })?;
    if cmd.first().is_none_or(String::is_empty) {
        return Err(Refused::new("cmd", "", "a program and its arguments").into());
    }
    let container = running(runtime, &container_id, "run a command in it")?;
    let url = server.url(Ask::Exec { container, command: cmd, streams })?;
    Ok(cri::ExecResponse { url })
}

/// `Attach`.
pub(crate) fn attach(
    runtime: &Runtime,
    server: &Server,
    request: &cri::AttachRequest,
) -> Result<cri::AttachResponse, DaemonError> {
    let cri::AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
    let streams = Streams { stdin: *stdin, stdout: *stdout, stderr: *stderr, tty: *tty };
    let streams = checked(streams)?;
    let container = running(runtime, container_id, "attach to it")?;
    let url = server.url(Ask::Attach { container, streams })?;
    Ok(cri::AttachResponse { url })
}

/// `PortForward`; a request without ports is one whose client names them stream by stream.
pub(crate) fn port_forward(
    runtime: &Runtime,
    server: &Server,
    request: &cri::PortForwardRequest,
) -> Result<cri::PortForwardResponse, DaemonError> {
    let ports = ports(&request.port)?;
    let pod = runtime.sandbox(&named("pod_sandbox_id", &request.pod_sandbox_id)?)?;
    if !pod.is_ready() {
        return Err(pod.not_ready("connect to a port of it").into());
    }
    let sandbox = pod.record.id.to_string();
    Ok(cri::PortForwardResponse { url: server.url(Ask::Forward { sandbox, ports })? })
}

fn running(runtime: &Runtime, id: &str, verb: &'static str) -> Result<String, DaemonError> {
    let container = runtime.container(&named("container_id", id)?)?;
    if !container.is_running() {
        return Err(container.wrong_state("running", verb).into());
    }
    // The client of the URL must not meet another container that the same prefix names by then.
    Ok(container.record.id.to_string())
}

fn named(field: &str, id: &str) -> Result<String, Refused> {
    if id.is_empty() { Err(Refused::new(field, "", "an id")) } else { Ok(id.to_owned()) }
}

fn checked(streams: Streams) -> Result<Streams, Refused> {
    if streams.tty && streams.stderr {
        return Err(Refused::new("stderr", "true", "false with a terminal, which is one stream"));
    }
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Refused::new("stdout", "false", "at least one of stdin, stdout and stderr"));
    }
    Ok(streams)
}

fn ports(asked: &[i32]) -> Result<Vec<u16>, Refused> {
    if asked.len() > limits::FORWARD_PORTS {
        let most = format!("{} ports at most", limits::FORWARD_PORTS);
        return Err(Refused::new("port", format!("{} ports", asked.len()), most));
    }
    let one = |port: &i32| {
        let number = u16::try_from(*port).ok().filter(|port| *port > 0);
        number.ok_or_else(|| Refused::new("port", port.to_string(), "1 to 65535"))
    };
    asked.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::{checked, named, ports};
    use crate::streaming::session::Streams;

    #[test]
    fn streams_that_cannot_be_are_refused() {
        let output = Streams { stdout: true, ..Streams::default() };
        assert!(checked(output).is_ok());
        assert!(checked(Streams { stdin: true, ..Streams::default() }).is_ok());
        assert!(checked(Streams { tty: true, ..output }).is_ok());
        let both = Streams { tty: true, stderr: true, ..output };
        assert_eq!(checked(both).unwrap_err().field, "stderr");
        assert_eq!(checked(Streams::default()).unwrap_err().field, "stdout");
        assert_eq!(named("container_id", "").unwrap_err().field, "container_id");
    }

    #[test]
    fn ports_are_ports() {
        assert_eq!(ports(&[]), Ok(vec![]));
        assert_eq!(ports(&[1, 80, 65_535]), Ok(vec![1, 80, 65_535]));
        for wrong in [0, -1, 65_536, 70_000, i32::MIN, i32::MAX] {
            assert_eq!(ports(&[80, wrong]).unwrap_err().found, format!("\"{wrong}\""));
        }
        assert!(ports(&[80; 127]).is_ok());
        assert_eq!(ports(&[80; 128]).unwrap_err().found, "\"128 ports\"");
    }
}
