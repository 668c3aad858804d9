//! Mounts by descriptor: built detached, changed, verified, then attached to a target that is already
//! open, so that no path is looked up twice (`reliability.md` class B). `mount_setattr(2)` is our own
//! wrapper. Where targets come from is the caller's business; `path.rs` opens them beneath a root.
//!
//! Needs Linux 5.12 (`mount_setattr`) and `CAP_SYS_ADMIN` over the mount namespace.

use crate::error::SysError;
use crate::fd;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A set of mount attributes (`MOUNT_ATTR_*`, `mount_setattr(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Read-only.
    pub const READONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-id bits and file capabilities are ignored.
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device nodes do not work.
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Nothing is executed.
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set if `condition` holds, else nothing.
    #[must_use]
    pub const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    fn for_fsmount(self) -> MountAttrFlags {
        // The low bits of both calls are the same numbers; fsmount(2) takes 32 of them.
        MountAttrFlags::from_bits_retain(u32::try_from(self.0).unwrap_or(0))
    }
}

/// How mounts and unmounts travel between copies (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Into this copy only.
    Slave,
    /// Both ways. A mount that is shared stays in its peer group.
    Shared,
}

/// What [`change`] does to a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Attributes to set; none is ever cleared.
    pub set: Flags,
    /// New propagation; `None` = as it is.
    pub propagation: Option<Propagation>,
    /// Also everything mounted below (`AT_RECURSIVE`).
    pub recursive: bool,
    /// Map ids as this user namespace does (`MOUNT_ATTR_IDMAP`); the mount must be detached and new.
    pub id_map: Option<BorrowedFd<'a>>,
}

/// A detached copy of what is mounted at a path of the host: `open_tree(OPEN_TREE_CLONE)`, symbolic
/// links followed. `recursive` takes everything mounted below along. The copy of a shared mount is in
/// its peer group.
pub fn clone_path(path: &CStr, recursive: bool) -> Result<OwnedFd, SysError> {
    rustix::mount::open_tree(rustix::fs::CWD, path, clone_flags(recursive))
        .map_err(SysError::rustix("open_tree", || path.to_string_lossy()))
}

/// As [`clone_path`], of the file or folder behind a descriptor (`O_PATH` will do), which must lie in
/// the caller's mount namespace.
pub fn clone_descriptor(at: impl AsFd, recursive: bool) -> Result<OwnedFd, SysError> {
    let flags = clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&at, c"", flags)
        .map_err(SysError::rustix("open_tree", || fd::describe(&at)))
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below
}

/// A file system that is being configured (`fsopen(2)`). Errors carry the kernel's own message where
/// there is one.
#[derive(Debug)]
pub struct NewFs(OwnedFd);

impl NewFs {
    /// Begins a file system of this type: `overlay`, `tmpfs`, `proc`.
    pub fn open(fstype: &CStr) -> Result<Self, SysError> {
        rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .map(Self)
            .map_err(SysError::rustix("fsopen", || fstype.to_string_lossy()))
    }

    /// Takes a mounted file system up again to change its options (`fspick(2)`).
    pub fn pick(mount: impl AsFd) -> Result<Self, SysError> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        rustix::mount::fspick(&mount, c"", flags)
            .map(Self)
            .map_err(SysError::rustix("fspick", || fd::describe(&mount)))
    }

    /// An option without value.
    pub fn flag(&self, key: &CStr) -> Result<&Self, SysError> {
        let done = rustix::mount::fsconfig_set_flag(&self.0, key);
        self.told(done, key)
    }

    /// An option with a text; `source` is one as well.
    pub fn text(&self, key: &CStr, value: &CStr) -> Result<&Self, SysError> {
        let done = rustix::mount::fsconfig_set_string(&self.0, key, value);
        self.told(done, key)
    }

    /// An option with a descriptor (`overlay`: `lowerdir+`, `upperdir`, `workdir`, Linux 6.13).
    pub fn descriptor(&self, key: &CStr, value: impl AsFd) -> Result<&Self, SysError> {
        let done = rustix::mount::fsconfig_set_fd(&self.0, key, value);
        self.told(done, key)
    }

    /// Makes it and mounts it, detached.
    pub fn mount(self, attributes: Flags) -> Result<OwnedFd, SysError> {
        let done = rustix::mount::fsconfig_create(&self.0);
        self.told(done, c"create")?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(&self.0, flags, attributes.for_fsmount())
            .map_err(SysError::rustix("fsmount", || self.message()))
    }

    /// Puts changed options of a picked file system in force.
    pub fn reconfigure(self) -> Result<(), SysError> {
        let done = rustix::mount::fsconfig_reconfigure(&self.0);
        self.told(done, c"reconfigure").map(|_same| ())
    }

    fn told(&self, done: rustix::io::Result<()>, key: &CStr) -> Result<&Self, SysError> {
        done.map(|()| self).map_err(SysError::rustix("fsconfig", || {
            let (key, message) = (key.to_string_lossy(), self.message());
            if message.is_empty() { key.into_owned() } else { format!("{key}: {message}") }
        }))
    }

    /// What the file system says about its last failure (`read(2)` of the context).
    fn message(&self) -> String {
        let mut buffer = [0_u8; 512];
        let count = fd::read(&self.0, &mut buffer).unwrap_or(0);
        let text = buffer.get(..count).unwrap_or_default();
        String::from_utf8_lossy(text).trim_end().escape_debug().collect()
    }
}

/// A small empty tmpfs, detached; `options` as in tmpfs(5).
pub fn tmpfs(options: &[(&CStr, &CStr)], attributes: Flags) -> Result<OwnedFd, SysError> {
    let fs = NewFs::open(c"tmpfs")?;
    fs.text(c"source", c"tmpfs")?;
    for (key, value) in options {
        fs.text(key, value)?;
    }
    fs.mount(attributes)
}

/// Attaches a detached tree to an open target: a folder to a folder, anything else to a file
/// (`move_mount(2)`, both sides by descriptor).
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), SysError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &target, c"", flags)
        .map_err(SysError::rustix("move_mount", || fd::describe(&target)))
}

/// As [`attach`], to a path that nobody else can change: in a private root of our own.
pub fn attach_path(tree: impl AsFd, target: &CStr) -> Result<(), SysError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", rustix::fs::CWD, target, flags)
        .map_err(SysError::rustix("move_mount", || target.to_string_lossy()))
}

/// Changes a mount by descriptor (`mount_setattr(2)`, Linux 5.12).
pub fn change(mount: impl AsFd, change: Change<'_>) -> Result<(), SysError> {
    let mut flags = libc::AT_EMPTY_PATH;
    flags |= if change.recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd();
    set_attributes(fd.as_raw_fd(), c"", flags, change)
        .map_err(|errno| SysError::new("mount_setattr", fd::describe(fd), errno))
}

/// Sets the propagation of everything below a path of our own root.
pub fn change_path(path: &CStr, propagation: Propagation) -> Result<(), SysError> {
    let change = Change { propagation: Some(propagation), recursive: true, ..Change::default() };
    set_attributes(libc::AT_FDCWD, path, libc::AT_RECURSIVE, change)
        .map_err(|errno| SysError::new("mount_setattr", path.to_string_lossy(), errno))
}

fn set_attributes(
    at: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    change: Change<'_>,
) -> Result<(), nix::errno::Errno> {
    let id_map = change.id_map.map_or(0, |_map| libc::MOUNT_ATTR_IDMAP);
    let attr = libc::mount_attr {
        attr_set: change.set.0 | id_map,
        attr_clr: 0,
        propagation: match change.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        userns_fd: change.id_map.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    let size = size_of::<libc::mount_attr>();
    let call = libc::SYS_mount_setattr;
    // SAFETY: `path` ends with a zero byte, `attr` is read only, its size is told, and both outlive
    // the call; descriptors are numbers here, borrowed by the callers.
    let answer = unsafe { libc::syscall(call, at, path.as_ptr(), flags, &raw const attr, size) };
    if answer == 0 { Ok(()) } else { Err(nix::errno::Errno::last()) }
}

/// Makes the mount behind `root` the root of this mount namespace and lets go of the old one:
/// fchdir, `pivot_root(".", ".")`, lazy unmount, chdir (`pivot_root(2)`, NOTES). No path is looked up.
pub fn pivot(root: impl AsFd) -> Result<(), SysError> {
    rustix::process::fchdir(&root).map_err(SysError::rustix("fchdir", || fd::describe(&root)))?;
    rustix::process::pivot_root(c".", c".").map_err(SysError::rustix("pivot_root", || "."))?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
        .map_err(SysError::rustix("umount2", || "."))?;
    rustix::process::chdir(c"/").map_err(SysError::rustix("chdir", || "/"))
}

/// The number of the mount that holds a path of the host, links followed, as in /proc/self/mountinfo
/// (`statx(2)`, Linux 5.8).
pub fn id_of(path: &std::path::Path) -> Result<u64, SysError> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map(|found| found.stx_mnt_id)
        .map_err(SysError::rustix("statx", || path.to_string_lossy()))
}

/// What the mount that holds a path of the host forbids, as mount(8) spells it: `ro`, `nosuid`, `nodev`,
/// `noexec` (`statvfs(3)`).
pub fn forbidden(path: &std::path::Path) -> Result<Vec<&'static str>, SysError> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let found = rustix::fs::statvfs(path)
        .map_err(SysError::rustix("statvfs", || path.to_string_lossy()))?;
    let words = [
        (Flags::RDONLY, "ro"),
        (Flags::NOSUID, "nosuid"),
        (Flags::NODEV, "nodev"),
        (Flags::NOEXEC, "noexec"),
    ];
    Ok(words
        .iter()
        .filter(|(flag, _)| found.f_flag.contains(*flag))
        .map(|(_, word)| *word)
        .collect())
}

/// Unmounts a path of the host, lazily, following no symbolic link (`umount2(2)`).
pub fn unmount(path: &CStr) -> Result<(), SysError> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(SysError::rustix("umount2", || path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::{Change, Flags, NewFs, attach, change, clone_descriptor, tmpfs};
    use crate::error::Errno;
    use rustix::fs::{CWD, Mode, OFlags, openat};

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }

    #[test]
    fn root_a_detached_tmpfs_is_used_by_descriptor_and_its_read_only_copy_is_not_written() {
        if !root() {
            return;
        }
        let writable = tmpfs(&[(c"mode", c"0755")], Flags::NOSUID.and(Flags::NODEV)).unwrap();
        let create = OFlags::CREATE | OFlags::WRONLY;
        openat(&writable, "a", create, Mode::RWXU).unwrap();
        let copy = clone_descriptor(&writable, false).unwrap();
        change(&copy, Change { set: Flags::READONLY, ..Change::default() }).unwrap();
        assert_eq!(openat(&copy, "b", create, Mode::RWXU).unwrap_err(), rustix::io::Errno::ROFS);
        openat(&writable, "b", create, Mode::RWXU).unwrap();
    }

    #[test]
    fn root_a_wrong_option_tells_what_the_file_system_said() {
        if !root() {
            return;
        }
        let error = tmpfs(&[(c"nonsense", c"1")], Flags::NONE).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains("nonsense"), "{error}");
        assert_eq!(NewFs::open(c"no-such-fs").unwrap_err().errno(), Errno::ENODEV);
    }

    #[test]
    fn a_descriptor_that_is_no_tree_cannot_be_attached() {
        let (input, _output) = crate::fd::pipe().unwrap();
        let target = openat(CWD, "/", OFlags::PATH, Mode::empty()).unwrap();
        assert!(attach(&input, &target).is_err());
    }
}
