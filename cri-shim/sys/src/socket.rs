//! Sequenced-packet sockets between our own processes (`AF_UNIX`, `SOCK_SEQPACKET`): one datagram is
//! one message, descriptors travel beside it. A payload larger than the given bound travels in a
//! sealed memory file, which is then the first descriptor, and the datagram is empty. What the bytes
//! mean is `shim-model`'s `wire.rs`.

use crate::error::SysError;
use crate::fd;
use nix::errno::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most descriptors that one message carries: `SCM_MAX_FD` of the kernel, unix(7).
pub const MAX_DESCRIPTORS: usize = 253;

/// A message that arrived.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What came beside it, all close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// How much a receiver accepts.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one datagram; a longer payload is sent in a memory file.
    pub inline: usize,
    /// Bytes of a payload in a memory file.
    pub memory: usize,
}

/// Two connected sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(SysError::rustix("socketpair", || ""))
}

/// A listening socket bound to `name` in the folder `dir`, mode 0600, non-blocking. The path goes
/// through the folder's descriptor, because `sun_path` holds 108 bytes only; `name` has no slash.
pub fn listen(dir: impl AsFd, name: &str, backlog: i32) -> Result<OwnedFd, SysError> {
    listen_as(SocketType::SEQPACKET, &dir, name, backlog)
}

/// As [`listen`], a stream socket: what programs connect to that are not ours.
pub fn listen_stream(dir: impl AsFd, name: &str, backlog: i32) -> Result<OwnedFd, SysError> {
    listen_as(SocketType::STREAM, &dir, name, backlog)
}

fn listen_as(
    kind: SocketType,
    dir: impl AsFd,
    name: &str,
    backlog: i32,
) -> Result<OwnedFd, SysError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, address) = unbound(&dir, name, (kind, flags))?;
    let target = || format!("{}/{name}", fd::describe(&dir));
    // The mode of the socket object becomes the mode of the file, minus the umask.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(SysError::rustix("fchmod", target))?;
    rustix::net::bind(&socket, &address).map_err(SysError::rustix("bind", target))?;
    rustix::net::listen(&socket, backlog).map_err(SysError::rustix("listen", target))?;
    Ok(socket)
}

/// Connects to `name` in the folder `dir`. The socket is blocking. `EAGAIN` = the backlog is full.
pub fn connect(dir: impl AsFd, name: &str) -> Result<OwnedFd, SysError> {
    let (socket, address) = unbound(&dir, name, (SocketType::SEQPACKET, SocketFlags::CLOEXEC))?;
    rustix::net::connect(&socket, &address)
        .map_err(SysError::rustix("connect", || format!("{}/{name}", fd::describe(&dir))))?;
    Ok(socket)
}

fn unbound(
    dir: impl AsFd,
    name: &str,
    (kind, flags): (SocketType, SocketFlags),
) -> Result<(OwnedFd, SocketAddrUnix), SysError> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
    let address =
        SocketAddrUnix::new(path.as_str()).map_err(SysError::rustix("bind", || path.clone()))?;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
        .map(|socket| (socket, address))
        .map_err(SysError::rustix("socket", || path.clone()))
}

/// Accepts one connection, non-blocking. `EAGAIN` = nobody waits.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, SysError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::io::retry_on_intr(|| rustix::net::accept_with(&listener, flags))
        .map_err(SysError::rustix("accept4", || fd::describe(&listener)))
}

/// User id of the process that connected (`SO_PEERCRED`, unix(7)).
pub fn peer_uid(socket: impl AsFd) -> Result<u32, SysError> {
    rustix::net::sockopt::socket_peercred(&socket)
        .map(|peer| peer.uid.as_raw())
        .map_err(SysError::rustix("getsockopt", || fd::describe(&socket)))
}

/// Sends one message. More than `inline` bytes go into a sealed memory file. On a non-blocking
/// socket a full queue is `EAGAIN`, and nothing was sent. Never raises SIGPIPE.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    inline: usize,
) -> Result<(), SysError> {
    if bytes.len() <= inline && !bytes.is_empty() {
        return send_datagram(socket.as_fd(), bytes, fds);
    }
    let memory = fd::sealed_memfd(c"wherry-message", bytes)?;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(fds);
    send_datagram(socket.as_fd(), &[], &all)
}

fn send_datagram(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), SysError> {
    let message = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(message) {
        return Err(SysError::new("sendmsg", fd::describe(socket), Errno::EINVAL));
    }
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
    })
    .map(|_count| ())
    .map_err(SysError::rustix("sendmsg", || fd::describe(socket)))
}

/// Sends a short message with one descriptor; allocates nothing.
pub fn send_one(
    socket: impl AsFd,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> Result<(), SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(SysError::new("sendmsg", String::new(), Errno::EINVAL));
    }
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL)
    })
    .map(|_count| ())
    .map_err(SysError::rustix("sendmsg", || fd::describe(&socket)))
}

/// Receives a message of at most `buffer`'s length with at most one descriptor; how many bytes, 0 = the
/// end. A longer message is cut.
pub fn recv_one(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(SysError::rustix("recvmsg", || fd::describe(&socket)))?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptor = rights.last();
        }
    }
    Ok((got.bytes, descriptor))
}

/// Receives one message; `None` = the other side closed. On a non-blocking socket `EAGAIN` = nothing
/// there. Over the bound, a truncated message, or an overflow that is not sealed is `EMSGSIZE`.
pub fn recv(socket: impl AsFd, bounds: Bounds) -> Result<Option<Packet>, SysError> {
    let socket = socket.as_fd();
    let error = |call| SysError::rustix(call, move || fd::describe(socket));
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
    let mut nothing = [0_u8; 0];
    let (_, length) = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut nothing, peek))
        .map_err(error("recv"))?;
    if length > bounds.inline {
        return Err(SysError::new("recv", fd::describe(socket), Errno::EMSGSIZE));
    }
    let mut bytes = vec![0_u8; length];
    let fds = recv_datagram(socket, &mut bytes)?;
    match (bytes.is_empty(), fds.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => overflowed(fds, bounds.memory).map(Some),
        (false, _) => Ok(Some(Packet { bytes, fds })),
    }
}

fn recv_datagram(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Vec<OwnedFd>, SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(SysError::rustix("recvmsg", || fd::describe(socket)))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    // The process ran out of descriptors: the kernel dropped some, silently but for this flag.
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(SysError::new("recvmsg", fd::describe(socket), Errno::EMFILE));
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(SysError::new("recvmsg", fd::describe(socket), Errno::EMSGSIZE));
    }
    Ok(fds)
}

fn overflowed(mut fds: Vec<OwnedFd>, bound: usize) -> Result<Packet, SysError> {
    let memory = fds.remove(0);
    let length = usize::try_from(fd::size(&memory)?).unwrap_or(usize::MAX);
    if length > bound || !fd::is_sealed(&memory) {
        return Err(SysError::new("recvmsg", fd::describe(&memory), Errno::EMSGSIZE));
    }
    fd::rewind(&memory)?;
    let bytes = fd::read_to_end(&memory, bound)?;
    Ok(Packet { bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::{Bounds, accept, connect, listen, pair, peer_uid, recv, recv_one, send, send_one};
    use crate::error::Errno;
    use crate::fd;
    use std::os::fd::AsFd;

    const BOUNDS: Bounds = Bounds { inline: 1024, memory: 1 << 20 };

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (left, right) = pair().unwrap();
        let (input, output) = fd::pipe().unwrap();
        send(&left, b"hello", &[input.as_fd(), output.as_fd()], 1024).unwrap();
        let packet = recv(&right, BOUNDS).unwrap().unwrap();
        assert_eq!((packet.bytes.as_slice(), packet.fds.len()), (b"hello".as_slice(), 2));
        assert_eq!(fd::inode(&packet.fds[0]).unwrap(), fd::inode(&input).unwrap());
    }

    #[test]
    fn a_long_message_travels_in_memory_before_the_other_descriptors() {
        let (left, right) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let long = vec![7_u8; 500_000];
        send(&left, &long, &[null.as_fd()], 1024).unwrap();
        let packet = recv(&right, BOUNDS).unwrap().unwrap();
        assert!(packet.bytes == long && packet.fds.len() == 1);
        send(&left, &long, &[], 1024).unwrap();
        let small = Bounds { memory: 1000, ..BOUNDS };
        assert_eq!(recv(&right, small).unwrap_err().errno(), Errno::EMSGSIZE);
    }

    #[test]
    fn a_short_message_brings_its_descriptor() {
        let (left, right) = pair().unwrap();
        let (input, _output) = fd::pipe().unwrap();
        send_one(&left, b"x", input.as_fd()).unwrap();
        send(&left, b"yz", &[], 10).unwrap();
        drop(left);
        let mut buffer = [0; 8];
        let (count, descriptor) = recv_one(&right, &mut buffer).unwrap();
        assert_eq!((count, buffer[0]), (1, b'x'));
        assert_eq!(fd::inode(descriptor.unwrap()).unwrap(), fd::inode(&input).unwrap());
        assert!(matches!(recv_one(&right, &mut buffer), Ok((2, None))));
        assert!(matches!(recv_one(&right, &mut buffer), Ok((0, None))));
    }

    #[test]
    fn an_empty_message_is_not_the_end() {
        let (left, right) = pair().unwrap();
        send(&left, b"", &[], 1024).unwrap();
        assert_eq!(recv(&right, BOUNDS).unwrap().unwrap().bytes, b"");
        drop(left);
        assert!(recv(&right, BOUNDS).unwrap().is_none());
    }

    #[test]
    fn a_folder_with_a_long_path_holds_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let deep = std::fs::File::open(deep).unwrap();
        let listener = listen(&deep, "monitor.sock", 8).unwrap();
        assert!(accept(&listener).unwrap_err().would_block());
        let client = connect(&deep, "monitor.sock").unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer_uid(&server).unwrap(), nix::unistd::getuid().as_raw());
        send(&client, b"x", &[], 10).unwrap();
        assert_eq!(recv(&server, BOUNDS).unwrap().unwrap().bytes, b"x");
        assert!(recv(&server, BOUNDS).unwrap_err().would_block());
    }
}
