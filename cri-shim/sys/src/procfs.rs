//! One private handle of procfs: mounted by ourselves, never attached, so nobody can mount over it
//! (`reliability.md` class C). Files are opened beneath it, without magic links and without crossing
//! mounts. Reads and writes are the caller's.

use crate::error::SysError;
use crate::fd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// A detached procfs of the calling process's PID namespace (`fsopen(2)`, Linux 5.2; needs
/// `CAP_SYS_ADMIN`).
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// Mounts it, detached: nosuid, nodev, noexec.
    pub fn detached() -> Result<Self, SysError> {
        use rustix::mount as m;
        let error = |call| SysError::rustix(call, || "proc");
        let fs = m::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(error("fsopen"))?;
        m::fsconfig_create(&fs).map_err(error("fsconfig"))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        m::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map(Self)
            .map_err(error("fsmount"))
    }

    /// Opens a file for reading, `path` relative: `self/mountinfo`.
    pub fn read(&self, path: &CStr) -> Result<OwnedFd, SysError> {
        self.open(path, OFlags::RDONLY)
    }

    /// Opens a file for writing: `sys/net/ipv4/ip_forward`.
    pub fn write(&self, path: &CStr) -> Result<OwnedFd, SysError> {
        self.open(path, OFlags::WRONLY)
    }

    fn open(&self, path: &CStr, flags: OFlags) -> Result<OwnedFd, SysError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
            .map_err(SysError::rustix("openat2", || format!("/proc/{}", path.to_string_lossy())))
    }

    /// The text of a small file, at most 64 KiB.
    pub fn text(&self, path: &CStr) -> Result<Vec<u8>, SysError> {
        fd::read_to_end(self.read(path)?, 64 << 10)
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Proc;

    #[test]
    fn root_a_detached_proc_reads_files_and_refuses_to_leave() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let proc = Proc::detached().unwrap();
        assert!(proc.text(c"self/status").unwrap().starts_with(b"Name:"));
        for path in [c"../etc/passwd", c"self/root/etc/passwd", c"self/cwd"] {
            assert!(proc.read(path).is_err(), "{path:?}");
        }
    }
}
