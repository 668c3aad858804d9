//! Making and removing things beneath a folder that hostile bytes describe: no link is ever followed,
//! nothing outside is ever reached (`openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)`,
//! Linux 5.6). Everything is done in an open folder by a single name, or to an open descriptor.
//! Lookups that follow links as a container would are `rooted.rs`.

use crate::error::SysError;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Resolution that can not leave the folder nor pass a link.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Folders in folders that are entered to remove a tree, each with a descriptor and a stack frame. What is
/// deeper is moved up first: a container can make a tree deeper than any number of descriptors.
const DEPTH: usize = 32;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `S_IFMT` and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Number of names.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Device, if it is one: major and minor.
    pub device: (u32, u32),
    /// Modification: seconds and nanoseconds.
    pub mtime: (i64, u32),
}

impl Meta {
    /// A folder.
    pub fn is_folder(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    /// A regular file.
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    /// A symbolic link.
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Symlink
    }

    /// A character device, as which overlayfs writes whiteouts when it is 0:0.
    pub fn is_character(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::CharacterDevice
    }

    /// A block device.
    pub fn is_block(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::BlockDevice
    }

    /// A named pipe.
    pub fn is_fifo(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Fifo
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn failed(call: &'static str, name: &[u8]) -> impl FnOnce(rustix::io::Errno) -> SysError {
    SysError::rustix(call, move || shown(name))
}

/// Opens a folder by a path of our own (not of a stranger), links followed.
pub fn open_folder(path: &Path) -> Result<OwnedFd, SysError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", path.as_os_str().as_bytes()))
}

/// Opens a folder beneath another; an empty path is the folder itself.
pub fn open_beneath(folder: impl AsFd, path: &[u8]) -> Result<OwnedFd, SysError> {
    let name = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(folder, name, flags, Mode::empty(), BENEATH)
        .map_err(failed("openat2", path))
}

/// Opens a file beneath a folder for reading.
pub fn open_file(folder: impl AsFd, path: &[u8]) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::openat2(folder, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)
        .map_err(failed("openat2", path))
}

/// Opens a file beneath a folder for writing.
pub fn open_file_to_write(folder: impl AsFd, path: &[u8]) -> Result<OwnedFd, SysError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::openat2(folder, OsStr::from_bytes(path), flags, Mode::empty(), BENEATH)
        .map_err(failed("openat2", path))
}

/// What stands at a path beneath a folder; `None` if nothing does.
pub fn look(folder: impl AsFd, path: &[u8]) -> Result<Option<Meta>, SysError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // RESOLVE_NO_SYMLINKS refuses a link as last component too, so its parent is opened first.
    let (parent, name) = split(path);
    let found = if parent.is_empty() {
        rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
    } else {
        rustix::fs::openat2(folder, OsStr::from_bytes(parent), flags, Mode::empty(), BENEATH)
            .and_then(|dir| {
                rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
            })
    };
    match found {
        Ok(stat) => Ok(Some(meta(&stat))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(failed("fstatat", path)(error)),
    }
}

/// Parent and last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

/// What an open descriptor is.
pub fn describe(fd: impl AsFd) -> Result<Meta, SysError> {
    rustix::fs::fstat(fd).map(|stat| meta(&stat)).map_err(failed("fstat", b"descriptor"))
}

fn meta(stat: &rustix::fs::Stat) -> Meta {
    Meta {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
        #[expect(clippy::useless_conversion, reason = "the width depends on the architecture")]
        links: u64::try_from(stat.st_nlink).unwrap_or_default(),
        inode: stat.st_ino,
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it, bytes.
    pub bytes: u64,
    /// All inodes that there can be; 0 where they are made as they are needed.
    pub inodes: u64,
    /// Those that are free.
    pub free_inodes: u64,
}

/// `statvfs(3)` of the file system that holds a path of our own.
pub fn space(path: &Path) -> Result<Space, SysError> {
    let found =
        rustix::fs::statvfs(path).map_err(failed("statvfs", path.as_os_str().as_bytes()))?;
    let bytes = found.f_blocks.saturating_mul(found.f_frsize);
    Ok(Space { bytes, inodes: found.f_files, free_inodes: found.f_ffree })
}

/// A device number of `stat(2)` as major and minor.
pub fn device_number(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Makes a folder, mode 0700 until [`set_mode`].
pub fn make_folder(folder: impl AsFd, name: &[u8]) -> Result<(), SysError> {
    rustix::fs::mkdirat(folder, OsStr::from_bytes(name), Mode::RWXU)
        .map_err(failed("mkdirat", name))
}

/// Makes a file that was not there and opens it for writing, mode 0600 until [`set_mode`].
pub fn make_file(folder: impl AsFd, name: &[u8]) -> Result<OwnedFd, SysError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, OsStr::from_bytes(name), flags, Mode::RUSR | Mode::WUSR)
        .map_err(failed("openat", name))
}

/// Makes a symbolic link.
pub fn make_link(folder: impl AsFd, name: &[u8], to: &[u8]) -> Result<(), SysError> {
    rustix::fs::symlinkat(OsStr::from_bytes(to), folder, OsStr::from_bytes(name))
        .map_err(failed("symlinkat", name))
}

/// Gives a file a second name; a symbolic link as source is named itself, not followed.
pub fn make_hard_link(from: (impl AsFd, &[u8]), to: (impl AsFd, &[u8])) -> Result<(), SysError> {
    let (old, new) = (OsStr::from_bytes(from.1), OsStr::from_bytes(to.1));
    rustix::fs::linkat(from.0, old, to.0, new, AtFlags::empty()).map_err(failed("linkat", to.1))
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Character device: major, minor.
    Character(u32, u32),
    /// Block device: major, minor.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// Makes a special file, mode 0600 until changed.
pub fn make_special(folder: impl AsFd, name: &[u8], special: Special) -> Result<(), SysError> {
    let (kind, device) = match special {
        Special::Character(major, minor) => {
            (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
        }
        Special::Block(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        Special::Fifo => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(folder, OsStr::from_bytes(name), kind, Mode::RUSR | Mode::WUSR, device)
        .map_err(failed("mknodat", name))
}

/// Removes a name that is not a folder; a missing one is done.
pub fn remove_file(folder: impl AsFd, name: &[u8]) -> Result<(), SysError> {
    match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("unlinkat", name)(error)),
    }
}

/// Removes a name with everything below it, however deep; a missing one is done. Never crosses a mount.
pub fn remove_all(folder: impl AsFd, name: &[u8]) -> Result<(), SysError> {
    match rustix::fs::unlinkat(&folder, OsStr::from_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(failed("unlinkat", name)(error)),
    }
    let top = match open_beneath(&folder, name) {
        Err(error) if error.is_missing() => return Ok(()),
        opened => opened?,
    };
    // Each round takes some more of a deep tree, which the round before moved up.
    let mut moved = 0u64;
    loop {
        let before = moved;
        empty_folder(&top, 0, &mut (&top, &mut moved))?;
        if moved == before {
            return remove_empty(folder, name);
        }
    }
}

fn remove_empty(folder: impl AsFd, name: &[u8]) -> Result<(), SysError> {
    match rustix::fs::unlinkat(folder, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("unlinkat", name)(error)),
    }
}

/// Empties a folder; folders at the bound are moved to the top, under the next number that is free there.
fn empty_folder(
    folder: &OwnedFd,
    depth: usize,
    moving: &mut (&OwnedFd, &mut u64),
) -> Result<(), SysError> {
    for (child, _) in list(folder)? {
        match rustix::fs::unlinkat(folder, OsStr::from_bytes(&child), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => continue,
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(failed("unlinkat", &child)(error)),
        }
        if depth >= DEPTH {
            move_up(folder, &child, moving)?;
            continue;
        }
        match open_beneath(folder, &child) {
            Err(error) if error.is_missing() => continue,
            inner => empty_folder(&inner?, depth.saturating_add(1), moving)?,
        }
        remove_empty(folder, &child)?;
    }
    Ok(())
}

fn move_up(
    folder: &OwnedFd,
    name: &[u8],
    (top, moved): &mut (&OwnedFd, &mut u64),
) -> Result<(), SysError> {
    loop {
        **moved = moved.saturating_add(1);
        let to = format!("moved-up-{moved}");
        match rustix::fs::renameat(folder, OsStr::from_bytes(name), *top, to.as_str()) {
            // Somebody's tree has that name.
            Err(
                rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY | rustix::io::Errno::NOTDIR,
            ) => {}
            done => return done.map_err(failed("renameat", name)),
        }
    }
}

/// Names in a folder without `.` and `..`, and whether each is a folder where the file system tells.
pub fn list(folder: impl AsFd) -> Result<Vec<(Vec<u8>, bool)>, SysError> {
    let mut names = Vec::new();
    visit(folder, |name, is_folder| names.push((name.to_vec(), is_folder)))?;
    Ok(names)
}

/// As [`list`], one name at a time: for folders that may hold more names than memory should.
pub fn visit(folder: impl AsFd, mut each: impl FnMut(&[u8], bool)) -> Result<(), SysError> {
    let entries = Dir::read_from(folder).map_err(failed("getdents64", b"folder"))?;
    for entry in entries {
        let entry = entry.map_err(failed("getdents64", b"folder"))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            each(name, entry.file_type() == FileType::Directory);
        }
    }
    Ok(())
}

/// Text of a symbolic link.
pub fn read_link(folder: impl AsFd, name: &[u8]) -> Result<Vec<u8>, SysError> {
    rustix::fs::readlinkat(folder, OsStr::from_bytes(name), Vec::new())
        .map(CString::into_bytes)
        .map_err(failed("readlinkat", name))
}

/// Owner of an open file or folder.
pub fn set_owner(fd: impl AsFd, uid: u32, gid: u32) -> Result<(), SysError> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(failed("fchown", b"descriptor"))
}

/// Permissions of an open file or folder, set-id bits among them. After the owner: chown clears them.
pub fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), SysError> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))
        .map_err(failed("fchmod", b"descriptor"))
}

/// Modification time of an open file or folder; the access time becomes the same.
pub fn set_time(fd: impl AsFd, mtime: (i64, u32)) -> Result<(), SysError> {
    rustix::fs::futimens(fd, &times(mtime)).map_err(failed("utimensat", b"descriptor"))
}

/// Owner, permissions (not of links) and time of a name that cannot be opened: link, device, pipe.
pub fn set_by_name(
    folder: impl AsFd,
    name: &[u8],
    owner: (u32, u32),
    mode: Option<u32>,
    mtime: (i64, u32),
) -> Result<(), SysError> {
    let path = OsStr::from_bytes(name);
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::chownat(&folder, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("fchownat", name))?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(&folder, path, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
            .map_err(failed("fchmodat", name))?;
    }
    rustix::fs::utimensat(folder, path, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("utimensat", name))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets an extended attribute of an open file or folder (xattr(7)).
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), SysError> {
    rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, rustix::fs::XattrFlags::empty())
        .map_err(failed("fsetxattr", name))
}

/// True if an open file or folder has this extended attribute.
pub fn has_xattr(fd: impl AsFd, name: &[u8]) -> Result<bool, SysError> {
    let mut nothing = [0u8; 0];
    match rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), &mut nothing) {
        Ok(_length) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(failed("fgetxattr", name)(error)),
    }
}

/// Name and value of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Extended attributes of an open file or folder.
pub fn xattrs(fd: impl AsFd) -> Result<Xattrs, SysError> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(&fd, names.as_mut_slice()) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        listed => listed.map_err(failed("flistxattr", b"descriptor"))?,
    };
    let mut found = Vec::new();
    for name in names.get(..length).unwrap_or_default().split(|b| *b == 0).filter(|n| !n.is_empty())
    {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::fgetxattr(&fd, OsStr::from_bytes(name), value.as_mut_slice())
            .map_err(failed("fgetxattr", name))?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

/// Makes a file this long without writing: what is not written later is a hole.
pub fn set_length(fd: impl AsFd, length: u64) -> Result<(), SysError> {
    rustix::fs::ftruncate(fd, length).map_err(failed("ftruncate", b"descriptor"))
}

/// Writes at an offset, all of it.
pub fn write_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<(), SysError> {
    while !bytes.is_empty() {
        let count =
            rustix::io::pwrite(&fd, bytes, offset).map_err(failed("pwrite64", b"descriptor"))?;
        bytes = bytes.get(count..).unwrap_or_default();
        offset = offset.saturating_add(count as u64);
    }
    Ok(())
}

/// Flushes the whole file system that holds this descriptor (syncfs(2)).
pub fn sync_file_system(fd: impl AsFd) -> Result<(), SysError> {
    rustix::fs::syncfs(fd).map_err(failed("syncfs", b"descriptor"))
}

#[cfg(test)]
mod tests {
    use super::{look, make_folder, make_link, open_beneath, open_folder, remove_all};

    #[test]
    fn a_link_on_the_way_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_folder(dir.path()).unwrap();
        make_folder(&root, b"real").unwrap();
        make_link(&root, b"link", b"/").unwrap();
        make_link(&root, b"inner", b"real").unwrap();
        assert!(open_beneath(&root, b"real").is_ok());
        for bad in [b"link".as_slice(), b"link/etc", b"inner", b"..", b"real/../..", b"/etc"] {
            assert!(open_beneath(&root, bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(look(&root, b"link").unwrap().unwrap().is_link());
    }

    #[test]
    fn removing_a_tree_leaves_what_its_links_name() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = open_folder(dir.path()).unwrap();
        make_folder(&root, b"tree").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("tree/out")).unwrap();
        std::fs::create_dir_all(dir.path().join("tree/a/b/c")).unwrap();
        remove_all(&root, b"tree").unwrap();
        remove_all(&root, b"tree").unwrap();
        assert!(outside.path().join("kept").exists() && !dir.path().join("tree").exists());
    }

    #[test]
    fn a_tree_deeper_than_all_descriptors_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_folder(dir.path()).unwrap();
        make_folder(&root, b"tree").unwrap();
        let mut at = open_beneath(&root, b"tree").unwrap();
        for name in [b"moved-up-1".as_slice(), b"moved-up-2"] {
            make_folder(&at, name).unwrap();
        }
        std::fs::write(dir.path().join("tree/moved-up-1/x"), "x").unwrap();
        std::fs::write(dir.path().join("tree/moved-up-3"), "x").unwrap();
        for _ in 0..1_500 {
            for name in [b"deeper".as_slice(), b"beside"] {
                make_folder(&at, name).unwrap();
            }
            at = open_beneath(&at, b"deeper").unwrap();
        }
        drop(at);
        remove_all(&root, b"tree").unwrap();
        assert!(!dir.path().join("tree").exists());
    }
}
