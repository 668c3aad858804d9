//! Labels of security modules for the calling process, by files of procfs: `attr/apparmor/*` (Linux 5.1, before
//! that `attr/*` belonged to whoever was there). They are opened beneath a handle that nobody can mount over, before
//! anything of a container is in reach, and what was written is read back: a label that went nowhere would leave
//! a container unconfined (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use crate::error::{Errno, SysError};
use crate::fd;
use crate::procfs::Proc;
use rustix::fs::{Mode, OFlags, XattrFlags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Which label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The AppArmor profile of the next program.
    ProfileAtExec,
    /// The AppArmor profile from now on.
    ProfileNow,
    /// The SELinux context of the next program.
    ContextAtExec,
    /// The SELinux context of keys that are made before it.
    ContextOfKeys,
}

impl Kind {
    const fn path(self) -> &'static CStr {
        match self {
            Self::ProfileAtExec => c"thread-self/attr/apparmor/exec",
            Self::ProfileNow => c"thread-self/attr/apparmor/current",
            Self::ContextAtExec => c"thread-self/attr/exec",
            Self::ContextOfKeys => c"thread-self/attr/keycreate",
        }
    }

    /// Where kernels before 5.1 have it.
    const fn older(self) -> &'static CStr {
        match self {
            Self::ProfileNow => c"thread-self/attr/current",
            Self::ProfileAtExec | Self::ContextAtExec => c"thread-self/attr/exec",
            Self::ContextOfKeys => c"thread-self/attr/keycreate",
        }
    }

    /// What stands before the label.
    const fn verb(self) -> &'static [u8] {
        match self {
            Self::ProfileAtExec => b"exec ",
            Self::ProfileNow => b"changeprofile ",
            Self::ContextAtExec | Self::ContextOfKeys => b"",
        }
    }
}

/// An open file of the calling thread's. Only the process that opened it can write it.
#[derive(Debug)]
pub struct Attribute(Kind, OwnedFd);

/// Longest text of one write: a page.
const TEXT: usize = 4_096;

impl Attribute {
    /// Opens it.
    pub fn open(proc: &Proc, kind: Kind) -> Result<Self, SysError> {
        let opened = match proc.read_write(kind.path()) {
            Err(error) if error.is_missing() => proc.read_write(kind.older()),
            opened => opened,
        };
        opened.map(|file| Self(kind, file))
    }

    /// Sets it, and sees that the kernel has it. Allocates nothing unless it fails.
    pub fn set(&self, label: &CStr) -> Result<(), SysError> {
        let (mut text, verb, label) = ([0_u8; TEXT], self.0.verb(), label.to_bytes());
        let length = verb.len().saturating_add(label.len());
        let long = || SysError::new("write", "a label of more than a page", Errno::ENAMETOOLONG);
        let place = text.get_mut(..length).ok_or_else(long)?;
        place.iter_mut().zip(verb.iter().chain(label)).for_each(|(to, from)| *to = *from);
        fd::write_all(&self.1, place)?;
        let mut buffer = [0_u8; TEXT];
        let found = match fd::read_start(&self.1, &mut buffer) {
            // In force at once, it may forbid the look at itself.
            Err(error) if self.0 == Kind::ProfileNow && error.errno() == Errno::EACCES => {
                return Ok(());
            }
            found => found?,
        };
        let taken = match self.0 {
            Kind::ProfileAtExec | Kind::ProfileNow => is(found, label),
            // The policy may spell a level in another way.
            Kind::ContextAtExec | Kind::ContextOfKeys => !found.is_empty(),
        };
        if taken {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(found).trim_end().to_owned();
        Err(SysError::new(
            "verify",
            format!("the label that was set reads \"{shown}\""),
            Errno::EPERM,
        ))
    }
}

/// The extended attribute that holds a file's SELinux context.
const FILE: &CStr = c"security.selinux";

/// Labels a file by a descriptor, which may be an `O_PATH` one: the file behind it, never what a link points at.
pub fn set_file(file: impl AsFd, context: &CStr) -> Result<(), SysError> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    // With its zero byte, as the policy's own programs store it.
    let value = context.to_bytes_with_nul();
    rustix::fs::setxattr(path, FILE, value, XattrFlags::empty())
        .map_err(SysError::rustix("setxattr", || fd::describe(&file)))
}

/// Labels a file or folder of the node and everything below it, following no link. What cannot be labelled because
/// its file system has no labels is left.
pub fn relabel(path: &Path, context: &CStr) -> Result<(), SysError> {
    let text = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(&text, flags, Mode::empty())
        .map_err(SysError::rustix("open", || path.to_string_lossy()))?;
    below(&top, context, DEPTH)
}

/// Folders in folders; one descriptor each is open at a time.
const DEPTH: usize = 512;

fn below(at: &OwnedFd, context: &CStr, depth: usize) -> Result<(), SysError> {
    match set_file(at, context) {
        Err(error) if error.errno() == Errno::EOPNOTSUPP => return Ok(()),
        done => done?,
    }
    if fd::kind(at)? != fd::FileKind::Folder {
        return Ok(());
    }
    let deeper = depth.checked_sub(1);
    let deeper = deeper.ok_or_else(|| SysError::new("relabel", fd::describe(at), Errno::ELOOP))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let told = || SysError::rustix("openat", || fd::describe(at));
    let listed = rustix::fs::openat(at, c".", flags, Mode::empty()).map_err(told())?;
    for entry in rustix::fs::Dir::new(listed).map_err(told())? {
        let entry = entry.map_err(told())?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(found) => below(&found, context, deeper)?,
            // Somebody removed it meanwhile.
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(told()(error)),
        }
    }
    Ok(())
}

/// Whether what is read back, a name and its mode in brackets, is this profile. A stack of profiles and one of
/// another policy namespace are spelled in the kernel's own order: of these only that there is one.
fn is(found: &[u8], label: &[u8]) -> bool {
    let found = found.trim_ascii_end();
    let compound = label.starts_with(b":") || label.windows(3).any(|part| part == b"//&");
    if compound {
        return !found.is_empty() && found != b"unconfined";
    }
    found.strip_prefix(label).is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ("))
}

#[cfg(test)]
mod tests {
    use super::{Attribute, FILE, Kind, is, relabel};
    use crate::error::Errno;
    use crate::process::{CloneInto, Cloned, clone3, exit_now, reap_blocking};
    use crate::procfs::Proc;

    #[test]
    fn a_label_is_read_back_as_the_kernel_spells_it() {
        for found in [&b"web (enforce)\n"[..], b"web", b"web (complain)\n"] {
            assert!(is(found, b"web"), "{found:?}");
        }
        for found in [&b""[..], b"unconfined\n", b"website (enforce)\n", b"0\n"] {
            assert!(!is(found, b"web"), "{found:?}");
        }
        assert!(is(b"b//&a (enforce)\n", b"a//&b") && !is(b"unconfined\n", b":ns:a"));
    }

    #[test]
    fn root_everything_below_a_folder_is_relabelled_and_nothing_behind_a_link() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        for file in ["inside/a/b/file", "outside/file"] {
            std::fs::write(folder.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("a/link")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), inside.join("file")).unwrap();
        let context = c"system_u:object_r:container_file_t:s0:c1,c2";
        relabel(&inside, context).unwrap();
        let label = |path: &std::path::Path| {
            let mut buffer = [0_u8; 128];
            let length = rustix::fs::lgetxattr(path, FILE, &mut buffer).unwrap_or(0);
            buffer[..length].to_vec()
        };
        for labelled in ["", "a", "a/b", "a/b/file", "a/link", "file"] {
            assert_eq!(label(&inside.join(labelled)), context.to_bytes_with_nul(), "{labelled}");
        }
        for untouched in [outside.clone(), outside.join("file")] {
            assert_ne!(label(&untouched), context.to_bytes_with_nul(), "{untouched:?}");
        }
    }

    #[test]
    fn root_a_label_that_nobody_takes_is_an_error() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let Cloned::Parent { pidfd, .. } = clone3(CloneInto::default()).unwrap() else {
            let tried = Proc::own()
                .and_then(|proc| Attribute::open(&proc, Kind::ProfileAtExec))
                .and_then(|attribute| attribute.set(c"wherry-no-such-profile"));
            let errno = tried.map_or_else(|error| error.errno(), |()| Errno::UnknownErrno);
            exit_now(i32::from(!matches!(errno, Errno::ENOENT | Errno::EINVAL)))
        };
        assert_eq!(reap_blocking(&pidfd).unwrap(), 0);
    }
}
