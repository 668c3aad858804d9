//! Namespaces of the calling thread: make new ones, join by descriptor, tell one from another. What
//! a process gets at its birth is `process.rs`; pins in a file system are the owner's business.

use crate::error::SysError;
use crate::fd;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use std::os::fd::{AsFd, OwnedFd};

/// A kind of namespace (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Mounts.
    Mount,
    /// Process ids; joined and made for children only.
    Pid,
    /// Network.
    Network,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// View of the cgroup tree.
    Cgroup,
    /// User and group ids, and capabilities over what is made in it.
    User,
}

impl Namespace {
    /// The name below `/proc/PID/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Cgroup => "cgroup",
            Self::User => "user",
        }
    }

    /// The flag of `clone(2)`; the same bit as for `unshare(2)`.
    pub(crate) const fn clone_flag(self) -> u64 {
        self.unshare_flag().bits() as u64
    }

    const fn unshare_flag(self) -> UnshareFlags {
        match self {
            Self::Mount => UnshareFlags::NEWNS,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Network => UnshareFlags::NEWNET,
            Self::Uts => UnshareFlags::NEWUTS,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::User => UnshareFlags::NEWUSER,
        }
    }

    const fn join_flag(self) -> ThreadNameSpaceType {
        match self {
            Self::Mount => ThreadNameSpaceType::MOUNT,
            Self::Pid => ThreadNameSpaceType::PROCESS_ID,
            Self::Network => ThreadNameSpaceType::NETWORK,
            Self::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            Self::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            Self::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
            Self::User => ThreadNameSpaceType::USER,
        }
    }
}

/// `unshare(2)`: new namespaces of these kinds for the calling thread.
pub fn unshare(kinds: &[Namespace]) -> Result<(), SysError> {
    let flags = kinds.iter().fold(UnshareFlags::empty(), |all, kind| all | kind.unshare_flag());
    // SAFETY: the flags never hold CLONE_FILES, so no descriptor changes its meaning for this thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(SysError::rustix("unshare", || format!("{kinds:?}")))
}

/// `setns(2)`: joins the namespaces of these kinds. `of` is a namespace's own descriptor (then one
/// kind), or the pidfd of a process that is in them (Linux 5.8).
pub fn join(of: impl AsFd, kinds: &[Namespace]) -> Result<(), SysError> {
    let none = ThreadNameSpaceType::empty();
    let flags = kinds.iter().fold(none, |all, kind| all | kind.join_flag());
    rustix::thread::move_into_thread_name_spaces(of.as_fd(), flags)
        .map_err(SysError::rustix("setns", || format!("{}, {kinds:?}", fd::describe(&of))))
}

/// The namespace of this kind that a process is in. Needs `/proc` of the PID namespace that `pid` is
/// counted in, and a process that cannot end meanwhile.
pub fn of_process(pid: i32, kind: Namespace) -> Result<OwnedFd, SysError> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/{pid}/ns/{}", kind.name());
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(SysError::rustix("open", || path.clone()))
}

/// The calling process's own namespace of this kind. Needs `/proc` of its PID namespace.
pub fn own(kind: Namespace) -> Result<OwnedFd, SysError> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/self/ns/{}", kind.name());
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(SysError::rustix("open", || path.clone()))
}

/// A number that no other live namespace of this kind has.
pub fn own_id(kind: Namespace) -> Result<u64, SysError> {
    own(kind).and_then(fd::inode).map(|(_device, inode)| inode)
}

/// `sethostname(2)` in the namespace of the calling thread.
pub fn set_hostname(name: &[u8]) -> Result<(), SysError> {
    rustix::system::sethostname(name)
        .map_err(SysError::rustix("sethostname", || String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::{Namespace, join, own, own_id, unshare};

    #[test]
    fn root_a_new_namespace_has_another_id_and_the_old_one_is_joined_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let before = own_id(Namespace::Uts).unwrap();
        // unshare and setns act on the thread, so the test harness keeps its own namespaces.
        std::thread::spawn(move || {
            let old = std::fs::File::open("/proc/thread-self/ns/uts").unwrap();
            unshare(&[Namespace::Uts]).unwrap();
            let new = std::fs::File::open("/proc/thread-self/ns/uts").unwrap();
            assert_ne!(crate::fd::inode(&new).unwrap().1, before);
            join(&old, &[Namespace::Uts]).unwrap();
            assert!(join(&old, &[Namespace::Ipc]).is_err());
        })
        .join()
        .unwrap();
        assert_eq!(own_id(Namespace::Uts).unwrap(), before);
        assert!(own(Namespace::Pid).is_ok());
    }
}
