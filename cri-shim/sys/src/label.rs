//! Labels of security modules for the calling process, by files of procfs: `attr/apparmor/*` (Linux 5.1, before
//! that `attr/*` belonged to whoever was there). They are opened beneath a handle that nobody can mount over, before
//! anything of a container is in reach, and what was written is read back: a label that went nowhere would leave
//! a container unconfined (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use crate::error::{Errno, SysError};
use crate::fd;
use crate::procfs::Proc;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Which label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The AppArmor profile of the next program.
    ProfileAtExec,
    /// The AppArmor profile from now on.
    ProfileNow,
}

impl Kind {
    const fn path(self) -> &'static CStr {
        match self {
            Self::ProfileAtExec => c"thread-self/attr/apparmor/exec",
            Self::ProfileNow => c"thread-self/attr/apparmor/current",
        }
    }

    /// Where kernels before 5.1 have it.
    const fn older(self) -> &'static CStr {
        match self {
            Self::ProfileAtExec => c"thread-self/attr/exec",
            Self::ProfileNow => c"thread-self/attr/current",
        }
    }

    /// What stands before the label.
    const fn verb(self) -> &'static [u8] {
        match self {
            Self::ProfileAtExec => b"exec ",
            Self::ProfileNow => b"changeprofile ",
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
        if is(found, label) {
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
    use super::{Attribute, Kind, is};
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
