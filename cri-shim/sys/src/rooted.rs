//! Lookups as a container sees them: every path is resolved inside the given root, absolute links and
//! `..` included (`openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, Linux 5.6), so that no link in an
//! image leads out. What is missing is made beneath the root, one component at a time. Allocates
//! nothing unless a call fails. Lookups that must not follow links at all are `path.rs`.

use crate::error::SysError;
use nix::errno::Errno;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `openat2(2)` answers EAGAIN while somebody renames on the way; after so many it is an error.
const TRIES: u32 = 64;
/// Dangling links that are followed to make what they point at; the kernel's own bound is 40.
const LINKS: u32 = 8;

/// What to make where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// A folder with this mode; folders on the way to it get 0755. The umask applies.
    Folder(u32),
    /// An empty file, mode 0644.
    File,
}

/// Opens what is at `path`, links followed, as a handle only (`O_PATH`).
pub fn open(root: impl AsFd, path: &CStr) -> Result<OwnedFd, SysError> {
    lookup(root.as_fd(), path, OFlags::PATH)
        .map_err(SysError::rustix("openat2", || path.to_string_lossy()))
}

/// Opens a file for writing, links followed, without making it.
pub fn open_for_writing(root: impl AsFd, path: &CStr) -> Result<OwnedFd, SysError> {
    lookup(root.as_fd(), path, OFlags::WRONLY | OFlags::NOCTTY)
        .map_err(SysError::rustix("openat2", || path.to_string_lossy()))
}

/// Opens a file for reading, links followed.
pub fn open_for_reading(root: impl AsFd, path: &CStr) -> Result<OwnedFd, SysError> {
    lookup(root.as_fd(), path, OFlags::RDONLY | OFlags::NOCTTY)
        .map_err(SysError::rustix("openat2", || path.to_string_lossy()))
}

/// The calling process's own root, as a handle.
pub fn here() -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/", flags, Mode::empty()).map_err(SysError::rustix("open", || "/"))
}

/// `mkdirat(2)`: makes one folder, mode 0755, by its bare name.
pub fn make_folder(parent: impl AsFd, name: &CStr) -> Result<(), SysError> {
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        .map_err(SysError::rustix("mkdirat", || name.to_string_lossy()))
}

/// `unlinkat(AT_REMOVEDIR)`: removes one empty folder, by its bare name.
pub fn remove_folder(parent: impl AsFd, name: &CStr) -> Result<(), SysError> {
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
        .map_err(SysError::rustix("unlinkat", || name.to_string_lossy()))
}

fn lookup(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        let found =
            rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        match found {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            found => return found,
        }
    }
    Err(rustix::io::Errno::AGAIN)
}

/// Opens what is at `path`; makes it, and the folders on the way, if nothing is there. A link that
/// points at nothing is followed, and its target is made.
pub fn ensure(root: impl AsFd, path: &CStr, make: Make) -> Result<OwnedFd, SysError> {
    ensure_as(root, path, How { make, owner: None, links: 0 })
}

/// As [`ensure`]; whatever is made belongs to this user and group.
pub fn ensure_owned(
    root: impl AsFd,
    path: &CStr,
    make: Make,
    owner: (u32, u32),
) -> Result<OwnedFd, SysError> {
    ensure_as(root, path, How { make, owner: Some(owner), links: 0 })
}

fn ensure_as(root: impl AsFd, path: &CStr, how: How) -> Result<OwnedFd, SysError> {
    let root = root.as_fd();
    match lookup(root, path, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT) => match make_last(root, path, how) {
            Some(made) => Ok(made),
            None => descend(root, path.to_bytes(), how),
        },
        found => found,
    }
    .map_err(SysError::rustix("openat2", || path.to_string_lossy()))
}

/// What to make, whose it is to be (`None` = the caller's), and how many dangling links led here.
#[derive(Clone, Copy)]
struct How {
    make: Make,
    owner: Option<(u32, u32)>,
    links: u32,
}

/// The usual case in three calls: only the last component is missing. `None` where it is another case
/// (a folder on the way is missing, somebody was faster, a link points at nothing): that is `descend`'s.
fn make_last(root: BorrowedFd<'_>, path: &CStr, how: How) -> Option<OwnedFd> {
    let (folder, name) = split(path)?;
    let folder = existing(root, folder)?;
    make_one(&folder, name, how).ok()?;
    lookup(root, path, OFlags::PATH).ok()
}

/// The folder part of a path and its last component, if that is a name.
fn split(path: &CStr) -> Option<(&[u8], &CStr)> {
    let bytes = path.to_bytes_with_nul();
    let end = path.to_bytes().iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let name = CStr::from_bytes_with_nul(bytes.get(end..)?).ok()?;
    let is_name = !matches!(name.to_bytes(), b"" | b"." | b"..");
    is_name.then_some((bytes.get(..end)?, name))
}

fn existing(root: BorrowedFd<'_>, folder: &[u8]) -> Option<OwnedFd> {
    let mut text = Text::new();
    text.push(b"/").ok()?;
    text.push(folder).ok()?;
    lookup(root, text.as_c_str(), OFlags::PATH).ok()
}

/// The folder that holds `path` (made if missing) and the last component's name.
pub fn parent_of(root: impl AsFd, path: &CStr) -> Result<(OwnedFd, &CStr), SysError> {
    let refused = || SysError::new("openat2", path.to_string_lossy(), Errno::EINVAL);
    let (folder, name) = split(path).ok_or_else(refused)?;
    if let Some(found) = existing(root.as_fd(), folder) {
        return Ok((found, name));
    }
    let how = How { make: Make::Folder(0o755), owner: None, links: 0 };
    descend(root.as_fd(), folder, how)
        .map(|folder| (folder, name))
        .map_err(SysError::rustix("openat2", || path.to_string_lossy()))
}

/// Makes a symbolic link; whatever is there already is left.
pub fn link(root: impl AsFd, path: &CStr, to: &CStr) -> Result<(), SysError> {
    let (folder, name) = parent_of(root, path)?;
    match rustix::fs::symlinkat(to, &folder, name) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(SysError::rustix("symlinkat", || path.to_string_lossy())(error)),
    }
}

/// A device node.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// A block device; else a character device.
    pub block: bool,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permissions; the umask applies.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

/// Sets the permissions of what is at `path`, whatever the umask. For roots of our own: a link at the end
/// would be followed.
pub fn set_mode(root: impl AsFd, path: &CStr, mode: u32) -> Result<(), SysError> {
    let (folder, name) = parent_of(root, path)?;
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::chmodat(&folder, name, mode, AtFlags::empty())
        .map_err(SysError::rustix("fchmodat", || path.to_string_lossy()))
}

/// Makes a device node; an existing node of the same device is left, anything else is `EEXIST`.
pub fn device(root: impl AsFd, path: &CStr, device: Device) -> Result<(), SysError> {
    let (folder, name) = parent_of(root, path)?;
    let error = |call| SysError::rustix(call, || path.to_string_lossy());
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.number.0, device.number.1);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(&folder, name, kind, mode, number) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            let there = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(error("fstatat"))?;
            let same = FileType::from_raw_mode(there.st_mode) == kind && there.st_rdev == number;
            let exists = || Err(SysError::new("mknodat", path.to_string_lossy(), Errno::EEXIST));
            return if same { Ok(()) } else { exists() };
        }
        Err(cause) => return Err(error("mknodat")(cause)),
    }
    if device.owner == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = device.owner;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(error("fchownat"))
}

/// A path on the stack, ended by a zero byte.
struct Text {
    bytes: [u8; 4096],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 4096], length: 0 }
    }

    fn push(&mut self, part: &[u8]) -> rustix::io::Result<()> {
        let end = self.length.saturating_add(part.len());
        // One byte stays zero at the end.
        let room = self.bytes.get_mut(self.length..end).filter(|_room| end < 4096);
        room.ok_or(rustix::io::Errno::NAMETOOLONG)?.copy_from_slice(part);
        self.length = end;
        Ok(())
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// Walks `path` from the root, making what is missing. Each prefix is looked up anew inside the root;
/// what is made is made in the folder found for the prefix before, by its bare name.
fn descend(root: BorrowedFd<'_>, path: &[u8], how: How) -> rustix::io::Result<OwnedFd> {
    let mut prefix = Text::new();
    let mut folder = lookup(root, c"/", OFlags::PATH)?;
    let mut parts = path.split(|b| matches!(b, b'/' | 0)).filter(|p| !p.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let parent = prefix.length;
        prefix.push(b"/")?;
        prefix.push(part)?;
        let make = if parts.peek().is_some() { Make::Folder(0o755) } else { how.make };
        let place = Place { prefix: &prefix, parent };
        folder = enter(root, &folder, &place, How { make, ..how })?;
    }
    Ok(folder)
}

/// A path and where its parent ends in it.
struct Place<'a> {
    prefix: &'a Text,
    parent: usize,
}

fn enter(
    root: BorrowedFd<'_>,
    folder: &OwnedFd,
    place: &Place<'_>,
    how: How,
) -> rustix::io::Result<OwnedFd> {
    use rustix::io::Errno as E;
    // Once as it is, once after it was made, once more if somebody removed it in between.
    for _ in 0..3 {
        match lookup(root, place.prefix.as_c_str(), OFlags::PATH) {
            Err(E::NOENT) => {}
            found => return found,
        }
        let mut name = Text::new();
        let start = place.parent.saturating_add(1);
        name.push(place.prefix.bytes.get(start..place.prefix.length).unwrap_or_default())?;
        match make_one(folder, name.as_c_str(), how) {
            Ok(()) | Err(E::NOENT) => {}
            Err(E::EXIST) if how.links < LINKS => {
                make_target(root, folder, (place, name.as_c_str()), how)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(E::NOENT)
}

fn make_one(folder: &OwnedFd, name: &CStr, how: How) -> rustix::io::Result<()> {
    match how.make {
        Make::Folder(mode) => rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(mode & 0o7777)),
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(folder, name, flags | OFlags::WRONLY, mode).map(drop)
        }
    }?;
    let Some((uid, gid)) = how.owner else { return Ok(()) };
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// The name is a link that points at nothing: makes what it points at, still inside the root.
fn make_target(
    root: BorrowedFd<'_>,
    folder: &OwnedFd,
    (place, name): (&Place<'_>, &CStr),
    how: How,
) -> rustix::io::Result<()> {
    let mut buffer = [0_u8; 4096];
    let (link, _rest) = match rustix::fs::readlinkat_raw(folder, name, &mut buffer) {
        Ok(length) => buffer.split_at(length),
        // No link (any more): somebody made it just now, look again.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut target = Text::new();
    if link.first() != Some(&b'/') {
        target.push(place.prefix.bytes.get(..place.parent).unwrap_or_default())?;
        target.push(b"/")?;
    }
    target.push(link)?;
    let how = How { links: how.links.saturating_add(1), ..how };
    descend(root, target.as_c_str().to_bytes(), how).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Make, ensure, link, open, parent_of};
    use crate::error::Errno;
    use crate::fd::{FileKind, inode, kind};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, fs::File) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let root = fs::File::open(dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn what_is_missing_is_made_on_the_way() {
        let (dir, root) = root();
        let made = ensure(&root, c"/a/b//c", Make::Folder(0o700)).unwrap();
        assert_eq!(kind(&made).unwrap(), FileKind::Folder);
        assert_eq!(kind(ensure(&root, c"a/b/f", Make::File).unwrap()).unwrap(), FileKind::File);
        let same = fs::File::open(dir.path().join("root/a/b/c")).unwrap();
        assert_eq!(inode(&same).unwrap(), inode(&made).unwrap());
    }

    #[test]
    fn links_of_an_image_end_inside_the_root() {
        let (dir, root) = root();
        let inside = dir.path().join("root");
        symlink("/run", inside.join("var")).unwrap();
        symlink("../../../../x", inside.join("up")).unwrap();
        ensure(&root, c"/var/secrets", Make::Folder(0o755)).unwrap();
        ensure(&root, c"/up/file", Make::File).unwrap();
        assert!(inside.join("run/secrets").is_dir() && inside.join("x/file").is_file());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dangling_link_at_the_end_is_followed_and_a_loop_is_an_error() {
        let (dir, root) = root();
        let inside = dir.path().join("root");
        symlink("real/file", inside.join("name")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        ensure(&root, c"/name", Make::File).unwrap();
        assert!(inside.join("real/file").is_file());
        assert_eq!(ensure(&root, c"/loop", Make::File).unwrap_err().errno(), Errno::ELOOP);
    }

    #[test]
    fn magic_links_and_files_on_the_way_are_refused() {
        let (dir, root) = root();
        fs::write(dir.path().join("root/file"), "").unwrap();
        let error = ensure(&root, c"/file/below", Make::Folder(0o755)).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOTDIR);
        let host = fs::File::open("/").unwrap();
        assert_eq!(open(&host, c"/proc/self/root").unwrap_err().errno(), Errno::ELOOP);
    }

    #[test]
    fn a_link_is_made_once_and_names_are_bare() {
        let (dir, root) = root();
        link(&root, c"/dev/fd", c"/proc/self/fd").unwrap();
        link(&root, c"/dev/fd", c"/other").unwrap();
        let text = fs::read_link(dir.path().join("root/dev/fd")).unwrap();
        assert_eq!(text.to_str(), Some("/proc/self/fd"));
        for path in [c"/", c"/a/", c"/a/..", c""] {
            assert_eq!(parent_of(&root, path).unwrap_err().errno(), Errno::EINVAL, "{path:?}");
        }
    }
}
