//! Descriptors: make pipes and memory files, duplicate, close, place at a fixed number, name for a
//! message. Every descriptor made here is close-on-exec. Paths below a root are `path.rs`.

use crate::error::SysError;
use nix::errno::Errno;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::pipe::PipeFlags;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A pipe: read end, write end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(SysError::rustix("pipe2", || ""))
}

/// How much a pipe takes before its writer waits (`F_SETPIPE_SZ`); the kernel rounds up. More than
/// `/proc/sys/fs/pipe-max-size` (1 MiB) needs `CAP_SYS_RESOURCE`.
pub fn set_pipe_size(pipe: impl AsFd, bytes: usize) -> Result<(), SysError> {
    rustix::pipe::fcntl_setpipe_size(&pipe, bytes)
        .map(|_granted| ())
        .map_err(SysError::rustix("fcntl", || describe(&pipe)))
}

/// How many bytes wait in a pipe (`FIONREAD`).
pub fn waiting(pipe: impl AsFd) -> Result<u64, SysError> {
    rustix::io::ioctl_fionread(&pipe).map_err(SysError::rustix("ioctl", || describe(&pipe)))
}

/// `splice(2)`: moves what is in a pipe on to another pipe or a terminal, at most `limit` bytes; how many,
/// 0 = the pipe's end. What does not fit stays in the pipe. Never blocks on the pipe; on `to` neither if
/// it does not block. `EAGAIN` = the pipe is empty, or `to` is full.
pub fn splice(pipe: impl AsFd, to: impl AsFd, limit: usize) -> Result<usize, SysError> {
    let flags = rustix::pipe::SpliceFlags::NONBLOCK;
    rustix::io::retry_on_intr(|| rustix::pipe::splice(&pipe, None, &to, None, limit, flags))
        .map_err(SysError::rustix("splice", || describe(&to)))
}

/// Opens a path of the host or of a private root, for reading and writing. Not for paths of an image.
pub fn open_read_write(path: &CStr) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(SysError::rustix("open", || path.to_string_lossy()))
}

/// What a descriptor is, for a message: its path, or `fd 7` if that cannot be told.
pub fn describe(fd: impl AsFd) -> String {
    let number = fd.as_fd().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{number}"))
        .map_or_else(|_| format!("fd {number}"), |path| path.display().to_string())
}

/// `fcntl(F_DUPFD_CLOEXEC)`: a second descriptor of the same open file.
pub fn duplicate(fd: impl AsFd) -> Result<OwnedFd, SysError> {
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(SysError::rustix("fcntl", || describe(&fd)))
}

/// Switches `O_NONBLOCK`, which belongs to the open file, not to the descriptor.
pub fn set_nonblocking(fd: impl AsFd) -> Result<(), SysError> {
    let name = || describe(&fd);
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(SysError::rustix("fcntl", name))?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(SysError::rustix("fcntl", name))
}

/// Device and inode number: the same pair means the same object.
pub fn inode(fd: impl AsFd) -> Result<(u64, u64), SysError> {
    let stat = rustix::fs::fstat(&fd).map_err(SysError::rustix("fstat", || describe(&fd)))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What kind of object a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link (opened by `O_PATH | O_NOFOLLOW`).
    Link,
    /// A character device; its major and minor number.
    CharDevice(u32, u32),
    /// A block device; its major and minor number.
    BlockDevice(u32, u32),
    /// A pipe.
    Pipe,
    /// A socket, or something newer.
    Other,
}

/// `fstat(2)`: what a descriptor is.
pub fn kind(fd: impl AsFd) -> Result<FileKind, SysError> {
    use rustix::fs::{FileType, major, minor};
    let stat = rustix::fs::fstat(&fd).map_err(SysError::rustix("fstat", || describe(&fd)))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Folder,
        FileType::RegularFile => FileKind::File,
        FileType::Symlink => FileKind::Link,
        FileType::CharacterDevice => FileKind::CharDevice(major(stat.st_rdev), minor(stat.st_rdev)),
        FileType::BlockDevice => FileKind::BlockDevice(major(stat.st_rdev), minor(stat.st_rdev)),
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket | FileType::Unknown => FileKind::Other,
    })
}

/// `read(2)` into `buffer`; how many bytes, 0 = end. Repeats after a signal.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, SysError> {
    rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut *buffer))
        .map_err(SysError::rustix("read", || describe(&fd)))
}

/// Sleeps until there is something to read, or the end (`poll(2)`).
pub fn wait_readable(fd: impl AsFd) -> Result<(), SysError> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut set = [PollFd::new(&fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut set, None))
        .map(|_count| ())
        .map_err(SysError::rustix("poll", || describe(&fd)))
}

/// `write(2)` once; how many bytes were taken. Repeats after a signal.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize, SysError> {
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, bytes))
        .map_err(SysError::rustix("write", || describe(&fd)))
}

/// `write(2)` until everything is taken.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), SysError> {
    while !bytes.is_empty() {
        let count = write(&fd, bytes)?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// `pread(2)` from offset 0 until the end or until `buffer` is full; the part that was filled.
/// For small files of the kernel that are read again and again by one descriptor.
pub fn read_start(fd: impl AsFd, buffer: &mut [u8]) -> Result<&[u8], SysError> {
    let count = rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut *buffer, 0))
        .map_err(SysError::rustix("pread", || describe(&fd)))?;
    Ok(buffer.get(..count).unwrap_or_default())
}

/// Reads to the end, from the present position; more than `limit` bytes are `EFBIG`.
pub fn read_to_end(fd: impl AsFd, limit: usize) -> Result<Vec<u8>, SysError> {
    let mut all = Vec::new();
    let mut part = [0_u8; 4096];
    loop {
        let count = read(&fd, &mut part)?;
        if count == 0 {
            return Ok(all);
        }
        if all.len().saturating_add(count) > limit {
            return Err(SysError::new("read", describe(&fd), Errno::EFBIG));
        }
        all.extend_from_slice(part.get(..count).unwrap_or_default());
    }
}

/// Size of a regular file, in bytes.
pub fn size(fd: impl AsFd) -> Result<u64, SysError> {
    let stat = rustix::fs::fstat(&fd).map_err(SysError::rustix("fstat", || describe(&fd)))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// `ftruncate(2)`.
pub fn truncate(fd: impl AsFd, length: u64) -> Result<(), SysError> {
    rustix::fs::ftruncate(&fd, length).map_err(SysError::rustix("ftruncate", || describe(&fd)))
}

/// A file in memory (`memfd_create(2)`) with seals allowed. `executable` asks for `MFD_EXEC`
/// (Linux 6.3), which hosts with `vm.memfd_noexec=1` need; older kernels do not know it.
pub fn memfd(name: &CStr, executable: bool) -> Result<OwnedFd, SysError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let error = || name.to_string_lossy();
    if executable {
        match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
            Err(rustix::io::Errno::INVAL) => {}
            made => return made.map_err(SysError::rustix("memfd_create", error)),
        }
    }
    rustix::fs::memfd_create(name, flags).map_err(SysError::rustix("memfd_create", error))
}

const WHOLE: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Times that a file is sealed which somebody holds pages of; the kernel itself waits 0.15 s each time.
const SEALINGS: usize = 20;

/// Forbids any further change of a memory file, by anybody (`F_ADD_SEALS`). While pages are held that
/// were written last, by a pipe or a processor's list of young pages, the kernel says EBUSY (`mm/memfd.c`):
/// for up to 3 s, then this says so too.
pub fn seal(fd: impl AsFd) -> Result<(), SysError> {
    let busy = |sealed: &_| *sealed == Err(rustix::io::Errno::BUSY);
    let mut tries = (0..SEALINGS).map(|_| rustix::fs::fcntl_add_seals(&fd, WHOLE));
    let sealed = tries.find(|sealed| !busy(sealed)).unwrap_or(Err(rustix::io::Errno::BUSY));
    sealed.map_err(SysError::rustix("fcntl", || describe(&fd)))
}

/// True if the descriptor is a memory file that nobody can change any more.
pub fn is_sealed(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(WHOLE))
}

/// A sealed memory file with this content; its position is the start.
pub fn sealed_memfd(name: &CStr, content: &[u8]) -> Result<OwnedFd, SysError> {
    let file = memfd(name, false)?;
    write_all(&file, content)?;
    seal(&file)?;
    rewind(&file)?;
    Ok(file)
}

/// `lseek(2)` to the start.
pub fn rewind(fd: impl AsFd) -> Result<(), SysError> {
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))
        .map(|_position| ())
        .map_err(SysError::rustix("lseek", || describe(&fd)))
}

/// Closes every descriptor from 3 on that is not in `keep` (`close_range(2)`, Linux 5.9): for a
/// process that was forked without exec, where close-on-exec does nothing. `keep` is sorted in place.
///
/// Descriptors of values that still exist are closed under them. The caller is a process that has
/// just been cloned and never drops what it inherited (it ends in exec or `_exit`), or owns all it has.
pub fn close_all_but(keep: &mut [BorrowedFd<'_>]) -> Result<(), SysError> {
    keep.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let mut first = 3_u32;
    for fd in keep.iter() {
        let Ok(number) = u32::try_from(fd.as_raw_fd()) else { continue };
        if number < first {
            continue;
        }
        if number > first {
            close_range(first, number.saturating_sub(1), 0)?;
        }
        first = number.saturating_add(1);
    }
    close_range(first, u32::MAX, 0)
}

/// Sets close-on-exec on every descriptor from 3 on (`CLOSE_RANGE_CLOEXEC`, Linux 5.11).
pub fn close_all_on_exec() -> Result<(), SysError> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), SysError> {
    // SAFETY: close_range(2) takes three numbers and touches no memory of ours. That no owned value
    // is closed under its owner is the duty that the callers' documentation passes on.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if answer == 0 {
        Ok(())
    } else {
        Err(SysError::last("close_range", format!("{first}, {last}")))
    }
}

/// The three standard streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// 0.
    Input,
    /// 1.
    Output,
    /// 2.
    Error,
}

/// `dup2(2)`: makes `fd` a standard stream, kept over exec.
pub fn place(fd: impl AsFd, at: Standard) -> Result<(), SysError> {
    let fd = fd.as_fd();
    let done = match at {
        Standard::Input => nix::unistd::dup2_stdin(fd),
        Standard::Output => nix::unistd::dup2_stdout(fd),
        Standard::Error => nix::unistd::dup2_stderr(fd),
    };
    done.map_err(SysError::nix("dup2", || describe(fd)))
}

/// Takes over descriptor 3, where the zygote finds its socket. `None` if nothing is open there.
/// To be called once, first thing in a process.
pub fn take_well_known() -> Option<OwnedFd> {
    // SAFETY: fcntl(F_GETFD) on a number touches no memory.
    let open = unsafe { libc::fcntl(WELL_KNOWN, libc::F_GETFD) };
    if open < 0 {
        return None;
    }
    // SAFETY: the number is open, and by the contract above nothing in this process owns it yet:
    // it was placed there by the process that executed us.
    Some(unsafe { OwnedFd::from_raw_fd(WELL_KNOWN) })
}

/// The number of [`take_well_known`].
pub(crate) const WELL_KNOWN: i32 = 3;

/// A duplicate whose number is above the well-known ones, closed by exec (`F_DUPFD_CLOEXEC`).
pub(crate) fn above_well_known(fd: impl AsFd) -> Result<OwnedFd, SysError> {
    rustix::io::fcntl_dupfd_cloexec(&fd, WELL_KNOWN + 1)
        .map_err(SysError::rustix("fcntl", || describe(&fd)))
}

#[cfg(test)]
mod tests {
    use super::{
        FileKind, inode, is_sealed, kind, memfd, pipe, read, rewind, seal, sealed_memfd,
        set_nonblocking, set_pipe_size, splice, write,
    };
    use crate::error::Errno;

    #[test]
    fn a_sealed_file_is_read_and_never_changed() {
        let file = sealed_memfd(c"test", b"content").unwrap();
        let mut text = [0; 16];
        assert_eq!(read(&file, &mut text).unwrap(), 7);
        assert_eq!(write(&file, b"x").unwrap_err().errno(), Errno::EPERM);
        assert!(is_sealed(&file));
        assert!(!is_sealed(memfd(c"open", false).unwrap()));
    }

    #[test]
    fn a_file_is_sealed_when_its_pages_are_let_go() {
        let file = memfd(c"held", false).unwrap();
        write(&file, &[1; 8192]).unwrap();
        rewind(&file).unwrap();
        let (from, into) = pipe().unwrap();
        assert_eq!(splice(&file, &into, 8192).unwrap(), 8192);
        let holder = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(500));
            drop(from);
        });
        drop(into);
        seal(&file).unwrap();
        holder.join().unwrap();
    }

    #[test]
    fn what_does_not_fit_stays_in_the_pipe() {
        let (from, into) = pipe().unwrap();
        let (out, to) = pipe().unwrap();
        set_nonblocking(&to).unwrap();
        set_pipe_size(&to, 4096).unwrap();
        let mut buffer = vec![7; 10_000];
        assert_eq!(write(&into, &buffer).unwrap(), 10_000);
        let moved = splice(&from, &to, 65536).unwrap();
        assert!(moved > 0 && moved < 10_000);
        assert!(splice(&from, &to, 65536).unwrap_err().would_block());
        let mut taken = read(&out, &mut buffer).unwrap();
        while taken < 10_000 {
            splice(&from, &to, 65536).unwrap();
            taken += read(&out, &mut buffer).unwrap();
        }
        assert!(splice(&from, &to, 65536).unwrap_err().would_block());
        drop(into);
        assert_eq!(splice(&from, &to, 65536).unwrap(), 0);
    }

    #[test]
    fn a_descriptor_tells_its_kind_and_identity() {
        let (input, output) = pipe().unwrap();
        assert_eq!(kind(&input).unwrap(), FileKind::Pipe);
        assert_eq!(inode(&input).unwrap(), inode(&output).unwrap());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(kind(&null).unwrap(), FileKind::CharDevice(1, 3));
    }
}
