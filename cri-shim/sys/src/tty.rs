//! Terminals: a new pseudo-terminal of the devpts instance that a process sees, its peer by descriptor, the
//! window's size, the controlling terminal, raw mode of the caller's own. What makes and drives one between
//! clone and exec allocates nothing.

use crate::error::SysError;
use crate::fd;
use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Where a devpts instance has its multiplexer.
const MULTIPLEXER: &CStr = c"dev/pts/ptmx";
/// Its device number (the kernel's devices.txt).
const NUMBER: (u32, u32) = (5, 2);
/// `DEVPTS_SUPER_MAGIC`, statfs(2).
const DEVPTS: u64 = 0x1cd1;

/// Both ends of a pseudo-terminal (pty(7)).
#[derive(Debug)]
pub struct Pty {
    /// What a terminal emulator holds: reads what programs print, writes what people type. It does not block.
    pub master: OwnedFd,
    /// What programs hold.
    pub peer: OwnedFd,
}

/// Makes a pseudo-terminal in the devpts that is mounted at `/dev/pts` below `root`, which a hostile
/// process may have shaped: the lookup never leaves the root, what was opened must be the multiplexer of
/// a devpts (else `ENOTTY`), and the peer is opened by descriptor (`TIOCGPTPEER`, Linux 4.13), never by
/// its name. Neither becomes anybody's controlling terminal.
pub fn open(root: impl AsFd) -> Result<Pty, SysError> {
    let name = || "/dev/pts/ptmx";
    // Not blocking also means that nothing but a terminal is waited for: a FIFO in its place.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let master = rustix::fs::openat2(&root, MULTIPLEXER, flags, Mode::empty(), resolve)
        .map_err(SysError::rustix("openat2", name))?;
    if !is_multiplexer(&master)? {
        return Err(SysError::new("openat2", name(), Errno::ENOTTY));
    }
    rustix::pty::unlockpt(&master).map_err(SysError::rustix("ioctl", || "TIOCSPTLCK"))?;
    let peer = peer(&master)?;
    Ok(Pty { master, peer })
}

/// The other end of a master (`TIOCGPTPEER`), whatever its name leads to.
pub fn peer(master: impl AsFd) -> Result<OwnedFd, SysError> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(&master, flags)
        .map_err(SysError::rustix("ioctl", || "TIOCGPTPEER"))
}

fn is_multiplexer(opened: &OwnedFd) -> Result<bool, SysError> {
    let stat = rustix::fs::fstat(opened).map_err(SysError::rustix("fstat", String::new))?;
    let system = rustix::fs::fstatfs(opened).map_err(SysError::rustix("fstatfs", String::new))?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(is_device && number == NUMBER && u64::try_from(system.f_type) == Ok(DEVPTS))
}

/// Makes a peer the controlling terminal of the calling process (`TIOCSCTTY`), which leads a session
/// without one.
pub fn take_control(peer: impl AsFd) -> Result<(), SysError> {
    rustix::process::ioctl_tiocsctty(&peer).map_err(SysError::rustix("ioctl", || "TIOCSCTTY"))
}

/// Gives a peer to a user; its group stays the one that devpts gave it (`gid=`, mostly `tty`).
pub fn give(peer: impl AsFd, uid: u32) -> Result<(), SysError> {
    rustix::fs::fchown(&peer, Some(rustix::fs::Uid::from_raw(uid)), None)
        .map_err(SysError::rustix("fchown", || "the terminal"))
}

/// A window's size, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Sets the window's size (`TIOCSWINSZ`); whoever is in the foreground gets SIGWINCH if it changed. Works
/// on either end.
pub fn set_size(terminal: impl AsFd, size: Size) -> Result<(), SysError> {
    let (ws_col, ws_row) = (size.columns, size.rows);
    let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size)
        .map_err(SysError::rustix("ioctl", || "TIOCSWINSZ"))
}

/// The window's size (`TIOCGWINSZ`).
pub fn size(terminal: impl AsFd) -> Result<Size, SysError> {
    rustix::termios::tcgetwinsize(&terminal)
        .map(|size| Size { columns: size.ws_col, rows: size.ws_row })
        .map_err(SysError::rustix("ioctl", || "TIOCGWINSZ"))
}

/// True if this is a terminal.
pub fn is_terminal(terminal: impl AsFd) -> bool {
    rustix::termios::isatty(&terminal)
}

/// A terminal whose input is raw: every byte is passed on as it was typed, nothing is echoed, no key makes
/// a signal (termios(3), `cfmakeraw`). Dropped, it is as it was before.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Makes it raw. What was typed and not read yet is kept.
    pub fn begin(terminal: impl AsFd) -> Result<Self, SysError> {
        let error = || SysError::rustix("ioctl", || "TCGETS");
        let before = rustix::termios::tcgetattr(&terminal).map_err(error())?;
        let raw = Self { terminal: fd::duplicate(&terminal)?, before };
        let mut wanted = raw.before.clone();
        wanted.make_raw();
        raw.set(&wanted)?;
        Ok(raw)
    }

    fn set(&self, mode: &Termios) -> Result<(), SysError> {
        // Drain: what was printed before is shown in the mode that it was printed in.
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, mode)
            .map_err(SysError::rustix("ioctl", || "TCSETSW"))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode any more.
        self.set(&self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::{Pty, Raw, Size, is_terminal, open, set_size, size};
    use crate::error::{Errno, SysError};
    use crate::fd;
    use std::fs::File;

    /// A pty of this machine, where it has a devpts of its own at `/dev/pts`.
    fn pty() -> Option<Pty> {
        match open(File::open("/").unwrap()) {
            Ok(pty) => Some(pty),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn what_is_typed_arrives_and_the_end_is_told() {
        let Some(Pty { master, peer }) = pty() else { return };
        assert!(is_terminal(&peer));
        fd::write_all(&master, b"line\n").unwrap();
        let mut text = [0; 64];
        assert_eq!(fd::read(&peer, &mut text).unwrap(), 5);
        drop(peer);
        // The echo first, then the end.
        let told = fd::read(&master, &mut text).unwrap();
        assert_eq!(&text[..told], b"line\r\n");
        assert_eq!(fd::read(&master, &mut text).unwrap_err().errno(), Errno::EIO);
    }

    #[test]
    fn both_ends_have_one_size() {
        let Some(Pty { master, peer }) = pty() else { return };
        let wanted = Size { columns: 132, rows: 50 };
        set_size(&master, wanted).unwrap();
        assert_eq!(size(&peer).unwrap(), wanted);
    }

    #[test]
    fn raw_passes_every_byte_until_it_is_dropped() {
        let Some(Pty { master, peer }) = pty() else { return };
        let raw = Raw::begin(&peer).unwrap();
        fd::write_all(&master, b"\x03\x04x").unwrap();
        let mut text = [0; 64];
        assert_eq!(fd::read(&peer, &mut text).unwrap(), 3);
        assert!(fd::read(&master, &mut text).unwrap_err().would_block());
        drop(raw);
        fd::write_all(&master, b"y\n").unwrap();
        fd::wait_readable(&master).unwrap();
        let echo = fd::read(&master, &mut text).unwrap();
        assert_eq!(&text[..echo], b"y\r\n");
    }

    #[test]
    fn nothing_but_a_multiplexer_of_a_devpts_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
        let path = dir.path().join("dev/pts/ptmx");
        let errno = || open(File::open(dir.path()).unwrap()).map_err(|e: SysError| e.errno());
        assert_eq!(errno().unwrap_err(), Errno::ENOENT);
        std::fs::write(&path, "").unwrap();
        assert_eq!(errno().unwrap_err(), Errno::ENOTTY);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(errno().unwrap_err(), Errno::ENOTTY);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/0", &path).unwrap();
        assert!(errno().is_err());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(errno().unwrap_err(), Errno::ENOENT);
    }
}
