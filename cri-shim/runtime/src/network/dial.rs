//! A TCP connection to a port inside a pod. Sockets are made on a thread of their own that joins the pod's
//! network namespace and ends; a socket stays in the namespace that it was made in (`socket(2)`,
//! `network_namespaces(7)`), so it is connected from here, without a thread that waits.

use super::{Network, netns};
use crate::error::{RuntimeError, chain};
use crate::runtime::{Runtime, blocking};
use shim_model::id::SandboxId;
use shim_model::kind::Refused;
use shim_model::limits;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

impl Runtime {
    /// Connects to a port of a pod's own loopback, 127.0.0.1 first, then `::1`; a pod with the node's
    /// network has the node's.
    pub async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream, RuntimeError> {
        if port == 0 {
            return Err(Refused::new("port", "0", "1 to 65535").into());
        }
        let pod = self.sandbox(sandbox)?;
        if !pod.is_ready() {
            return Err(pod.not_ready("connect to a port of it"));
        }
        let attached = pod.record.attachment.as_ref().map(|attachment| &attachment.id);
        self.0.network.dial(attached, port).await.map_err(|cause| RuntimeError::Dial {
            port,
            sandbox: pod.record.id.short().to_owned(),
            cause: Box::new(cause),
        })
    }
}

impl Network {
    /// Connects to a port of an attached pod's loopback, or of the node's.
    pub(super) async fn dial(
        &self,
        pod: Option<&SandboxId>,
        port: u16,
    ) -> Result<TcpStream, RuntimeError> {
        let sockets = match pod {
            Some(id) => {
                let pin = self.pin(id);
                blocking(move || netns::inside(&pin, Sockets::make)).await?
            }
            None => Sockets::make(),
        };
        sockets
            .connect(port)
            .await
            .map_err(|why| RuntimeError::Network { doing: "connect to loopback".to_owned(), why })
    }
}

/// One socket of each family that the kernel has.
#[derive(Debug)]
struct Sockets {
    four: io::Result<TcpSocket>,
    six: io::Result<TcpSocket>,
}

impl Sockets {
    /// Makes them in the network namespace of the calling thread.
    fn make() -> Self {
        Self { four: TcpSocket::new_v4(), six: TcpSocket::new_v6() }
    }

    /// The first loopback address that answers; else what each said.
    async fn connect(self, port: u16) -> Result<TcpStream, String> {
        let mut said = Vec::new();
        let families = [
            (IpAddr::V4(Ipv4Addr::LOCALHOST), self.four),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), self.six),
        ];
        for (address, socket) in families {
            match one(SocketAddr::new(address, port), socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) => said.push(format!("{address}: {}", chain(&error))),
            }
        }
        Err(said.join(", "))
    }
}

async fn one(address: SocketAddr, socket: io::Result<TcpSocket>) -> io::Result<TcpStream> {
    let connecting = socket?.connect(address);
    match tokio::time::timeout(limits::POD_DIAL, connecting).await {
        Ok(connected) => connected,
        Err(_late) => Err(io::ErrorKind::TimedOut.into()),
    }
}
