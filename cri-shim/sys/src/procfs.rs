//! One private handle of procfs: mounted by ourselves, never attached, so nobody can mount over it
//! (`reliability.md` class C). Files are opened beneath it, without magic links and without crossing
//! mounts. Reads and writes are the caller's.

use crate::error::{Errno, SysError};
use crate::fd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// What `statfs(2)` says of a procfs (`linux/magic.h`), and the inode of its root (`linux/proc_ns.h`).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;
const PROC_ROOT: u64 = 1;

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

    /// The procfs at `/proc` of a mount namespace of our own, seen to be one, and its root: as good as a detached
    /// one, without the three calls.
    pub fn own() -> Result<Self, SysError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let error = |call| SysError::rustix(call, || "/proc");
        let found = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(error("open"))?;
        let kind = rustix::fs::fstatfs(&found).map_err(error("fstatfs"))?.f_type;
        let inode = rustix::fs::fstat(&found).map_err(error("fstat"))?.st_ino;
        if kind == PROC_SUPER_MAGIC && inode == PROC_ROOT {
            return Ok(Self(found));
        }
        Err(SysError::new("open", "/proc is no procfs", Errno::EINVAL))
    }

    /// Opens a file for reading and writing.
    pub fn read_write(&self, path: &CStr) -> Result<OwnedFd, SysError> {
        self.open(path, OFlags::RDWR)
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
    use crate::error::Errno;

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

    #[test]
    fn root_what_is_mounted_over_proc_is_not_taken_for_it() {
        use crate::mount::{Flags, attach_path, change_path, clone_path, tmpfs};
        use crate::namespace::{Namespace, unshare};
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        // A thread of its own has a mount namespace of its own.
        let seen = std::thread::spawn(|| {
            unshare(&[Namespace::Mount]).unwrap();
            change_path(c"/", crate::mount::Propagation::Private).unwrap();
            let real = Proc::own().unwrap();
            assert!(real.text(c"thread-self/status").unwrap().starts_with(b"Name:"));
            // A file over one of its files, a folder of it over itself, and another file system.
            let other = clone_path(c"/etc/hostname", false).unwrap();
            attach_path(&other, c"/proc/self/status").unwrap();
            let crossed = Proc::own().unwrap().text(c"self/status").map_err(|error| error.errno());
            let part = clone_path(c"/proc/self", false).unwrap();
            attach_path(&part, c"/proc").unwrap();
            let part = Proc::own().is_err();
            attach_path(tmpfs(&[], Flags::NONE).unwrap(), c"/proc").unwrap();
            (crossed, part, Proc::own().is_err())
        });
        let (crossed, part, other) = seen.join().unwrap();
        assert_eq!(crossed, Err(Errno::EXDEV));
        assert!(part && other);
    }
}
