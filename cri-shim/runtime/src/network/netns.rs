//! Network namespaces: made on a thread of their own, loopback up, pinned by a bind mount, so that CNI
//! plugins and a later daemon find them by path.

use crate::error::RuntimeError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use shim_sys::mount;
use shim_sys::namespace::{self, Namespace};
use shim_sys::netlink::{Family, Netlink};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes a namespace and pins it at `pin`.
pub fn make(pin: &Path) -> Result<OwnedFd, RuntimeError> {
    File::create(pin).map_err(RuntimeError::file("make the pin", pin))?;
    let made = on_thread(|| {
        let doing = || "make a network namespace";
        namespace::unshare(&[Namespace::Network]).map_err(RuntimeError::system(doing()))?;
        loopback_up()?;
        // This thread's, not the process's: /proc/self is the first thread.
        let path = "/proc/thread-self/ns/net";
        let own = File::open(path).map_err(RuntimeError::file("open", path))?;
        // The namespace's file of this very thread: it is gone with the thread, the bind mount stays.
        let tree = mount::clone_path(c"/proc/thread-self/ns/net", false)
            .map_err(RuntimeError::system(doing()))?;
        Ok((OwnedFd::from(own), tree))
    });
    let pinned = made.and_then(|(own, tree)| {
        mount::attach_path(&tree, &c_path(pin))
            .map_err(RuntimeError::system("pin a network namespace"))?;
        Ok(own)
    });
    if pinned.is_err() {
        let _the_first_error_counts = fs::remove_file(pin);
    }
    pinned
}

/// Unpins a namespace; a missing one is done.
pub fn remove(pin: &Path) -> Result<(), RuntimeError> {
    if !pin.exists() {
        return Ok(());
    }
    // Not mounted is fine: a crash between the file and the mount.
    let _not_mounted = mount::unmount(&c_path(pin));
    match fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file("remove the pin", pin)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs work in the namespace that is pinned at a path.
pub fn inside<T: Send>(
    pin: &Path,
    work: impl FnOnce() -> Result<T, RuntimeError> + Send,
) -> Result<T, RuntimeError> {
    let target = File::open(pin).map_err(RuntimeError::file("open the namespace", pin))?;
    on_thread(move || {
        namespace::join(&target, &[Namespace::Network])
            .map_err(RuntimeError::system("join a network namespace"))?;
        work()
    })
}

/// A thread of its own: changing its namespace changes nobody else's.
fn on_thread<T: Send>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send,
) -> Result<T, RuntimeError> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or(Err(RuntimeError::Lost("a thread of the network")))
    })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn loopback_up() -> Result<(), RuntimeError> {
    let mut link = LinkMessage::default();
    link.header.index = 1;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let mut routes = Routes::open()?;
    routes.ask("set up loopback", RouteNetlinkMessage::SetLink(link), 0)
}

/// A route socket in the present namespace.
#[derive(Debug)]
pub struct Routes {
    socket: Netlink,
    sequence: u32,
}

impl Routes {
    /// Opens it.
    pub fn open() -> Result<Self, RuntimeError> {
        let socket =
            Netlink::open(Family::Route).map_err(RuntimeError::system("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// One change, acknowledged. `flags` beside REQUEST and ACK.
    pub fn ask(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RuntimeError> {
        self.send(doing, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(doing).map(|_acknowledged| ())
    }

    /// One question; every answer.
    pub fn dump(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, RuntimeError> {
        self.send(doing, message, NLM_F_REQUEST | netlink_packet_core::NLM_F_DUMP)?;
        self.answers(doing)
    }

    /// One question about one thing; its answer.
    pub fn get(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, RuntimeError> {
        self.send(doing, message, NLM_F_REQUEST | NLM_F_ACK)?;
        Ok(self.answers(doing)?.into_iter().next())
    }

    fn send(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RuntimeError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0u8; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes).map_err(RuntimeError::system(doing.to_owned()))
    }

    fn answers(&mut self, doing: &str) -> Result<Vec<RouteNetlinkMessage>, RuntimeError> {
        let mut found = Vec::new();
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let length =
                self.socket.receive(&mut buffer).map_err(RuntimeError::system(doing.to_owned()))?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let packet =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                        RuntimeError::Network { doing: doing.to_owned(), why: error.to_string() }
                    })?;
                let used =
                    usize::try_from(packet.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
                rest = rest.get(used..).unwrap_or_default();
                match packet.payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(found),
                            Some(code) => Err(RuntimeError::Network {
                                doing: doing.to_owned(),
                                why: std::io::Error::from_raw_os_error(code.get().wrapping_abs())
                                    .to_string(),
                            }),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    _ => {}
                }
            }
        }
    }
}
