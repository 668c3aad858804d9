//! A netlink socket in the caller's network namespace: send a batch of messages, read every answer.
//! What the bytes mean is the caller's business (the message crates); this file bounds, frames nothing.

use crate::error::SysError;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::OwnedFd;

/// Which part of the kernel answers (netlink(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nftables.
    Netfilter,
}

/// An open socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a blocking socket that gives up on an answer after a few seconds.
    pub fn open(family: Family) -> Result<Self, SysError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let error = |call| SysError::rustix(call, || "netlink");
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(error("socket"))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(error("bind"))?;
        let patience = std::time::Duration::from_secs(10);
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(patience),
        )
        .map_err(error("setsockopt"))?;
        Ok(Self(socket))
    }

    /// Sends one datagram of messages to the kernel.
    pub fn send(&self, bytes: &[u8]) -> Result<(), SysError> {
        let sent =
            rustix::net::sendto(&self.0, bytes, SendFlags::NOSIGNAL, &SocketAddrNetlink::new(0, 0));
        sent.map(|_count| ()).map_err(SysError::rustix("sendto", || "netlink"))
    }

    /// Receives one datagram of answers into `buffer`; returns its length.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, SysError> {
        let (got, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, &mut *buffer, RecvFlags::TRUNC)
        })
        .map_err(SysError::rustix("recv", || "netlink"))?;
        let _ = got;
        if length > buffer.len() {
            return Err(SysError::new("recv", "netlink", nix::errno::Errno::EMSGSIZE));
        }
        Ok(length)
    }
}
