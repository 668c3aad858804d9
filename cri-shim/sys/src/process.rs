//! Processes: clone one into a cgroup and new namespaces, replace it by a program, signal and wait for
//! one by descriptor, tell it from a later one with the same number. Programs that the daemon runs
//! (plugins) are spawned here as well. Credentials are `credentials.rs`, namespaces `namespace.rs`.

use crate::error::SysError;
use crate::fd;
use crate::namespace::Namespace;
use nix::errno::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a new process gets of its own (`clone(2)`).
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneInto<'a> {
    /// `CLONE_NEW…`: new namespaces of these kinds, a copy of the mount namespace. A user namespace among
    /// them is made first and owns the others.
    pub new: &'a [Namespace],
    /// `CLONE_PARENT`: a sibling of the caller, which then cannot reap it; its parent gets the signal that
    /// the caller's own end would send.
    pub sibling: bool,
    /// `CLONE_INTO_CGROUP` (Linux 5.7): it starts in this group of cgroup v2.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which of the two processes goes on.
#[derive(Debug)]
pub enum Cloned {
    /// The caller. The new process, by id and descriptor.
    Parent { pid: i32, pidfd: OwnedFd },
    /// The new process.
    Child,
}

/// `clone3(2)` without shared memory, with `CLONE_PIDFD` (Linux 5.3); the parent gets SIGCHLD.
///
/// The new process has one thread, a copy of the calling one; locks held by other threads stay locked
/// in it. So the caller has one thread only, or the child calls nothing but functions of this crate
/// that allocate nothing, and ends in exec or [`exit_now`].
pub fn clone3(into: CloneInto<'_>) -> Result<Cloned, SysError> {
    let mut pidfd: i32 = -1;
    let mut flags = libc::CLONE_PIDFD;
    flags |= if into.sibling { libc::CLONE_PARENT } else { 0 };
    let mut flags = u64::from(flags.unsigned_abs());
    flags |= into.new.iter().fold(0, |all, kind| all | kind.clone_flag());
    if into.cgroup.is_some() {
        flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP, does not fit the type of libc's constants
    }
    // SAFETY: clone_args is a plain struct of integers, for which all zeroes is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = std::ptr::addr_of_mut!(pidfd) as u64;
    // With CLONE_PARENT it must be 0.
    args.exit_signal = if into.sibling { 0 } else { u64::from(libc::SIGCHLD.unsigned_abs()) };
    args.cgroup = into.cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()));
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child runs on its own copy of this very stack, as after fork(2), so
    // returning in both is sound; `args` outlives the call, the kernel writes only `pidfd`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::addr_of_mut!(args), size) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel has just opened this
            // descriptor (close-on-exec) for us and nobody else knows of it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        Ok(_) | Err(_) => Err(SysError::last("clone3", "")),
    }
}

/// `_exit(2)`: ends the process without running destructors or flushing anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return; it touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// `pidfd_open(2)`, Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, SysError> {
    let none = || SysError::new("pidfd_open", pid.to_string(), Errno::ESRCH);
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(none)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(SysError::rustix("pidfd_open", || pid.as_raw_nonzero().to_string()))
}

/// `pidfd_send_signal(2)`, Linux 5.1. `signal` is the kernel's number, real-time signals included;
/// 0 asks only whether it lives (a zombie does). `ESRCH` = it was reaped.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), SysError> {
    let number = pidfd.as_fd().as_raw_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to make its own; the other arguments are numbers, the
    // descriptor is borrowed for the call.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, signal, none, 0_u32) };
    if answer == 0 {
        return Ok(());
    }
    Err(SysError::last("pidfd_send_signal", format!("{}, {signal}", fd::describe(pidfd))))
}

/// `kill(2)` with SIGKILL by number: only for numbers just read from a cgroup's list of processes.
pub fn kill_number(pid: i32) -> Result<(), SysError> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(SysError::nix("kill", || pid.to_string()))
}

/// `kill(2)` with SIGKILL to a whole process group: only of a child that leads it and was not reaped.
pub fn kill_group(leader: i32) -> Result<(), SysError> {
    let group = nix::unistd::Pid::from_raw(leader);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
        .map_err(SysError::nix("killpg", || leader.to_string()))
}

/// True if the process has ended (it may still be a zombie): its descriptor is readable then.
pub fn has_ended(pidfd: impl AsFd) -> Result<bool, SysError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut set = [PollFd::new(&pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut set, Some(&at_once)))
        .map(|count| count > 0)
        .map_err(SysError::rustix("poll", || fd::describe(&pidfd)))
}

/// Waits at most so long for a process to end; false = it still runs.
pub fn wait_end(pidfd: impl AsFd, patience: std::time::Duration) -> Result<bool, SysError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = std::time::Instant::now().checked_add(patience);
    loop {
        let left =
            end.map_or(patience, |end| end.saturating_duration_since(std::time::Instant::now()));
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        let mut set = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut set, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            done => {
                let error = SysError::rustix("poll", || fd::describe(&pidfd));
                return done.map(|count| count > 0).map_err(error);
            }
        }
    }
}

/// Exit code of a process that ended: its own, or 128 + n for death by signal n.
fn code(status: &WaitIdStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.saturating_add(128),
        (None, None) => 255,
    }
}

/// Reaps a child by its descriptor (`waitid(P_PIDFD)`, Linux 5.4); its exit code (128 + n for death
/// by signal n). `None` = it still runs. `ECHILD` = not a child, or reaped before.
pub fn reap(pidfd: impl AsFd) -> Result<Option<i32>, SysError> {
    wait(&pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

/// As [`reap`], but waits until it ends.
pub fn reap_blocking(pidfd: impl AsFd) -> Result<i32, SysError> {
    let code = wait(&pidfd, WaitIdOptions::EXITED)?;
    code.ok_or_else(|| SysError::new("waitid", fd::describe(&pidfd), Errno::ECHILD))
}

fn wait(pidfd: impl AsFd, options: WaitIdOptions) -> Result<Option<i32>, SysError> {
    let pidfd = pidfd.as_fd();
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))
        .map(|status| status.as_ref().map(code))
        .map_err(SysError::rustix("waitid", || fd::describe(pidfd)))
}

/// What [`ended_child`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// This child ended and is still to be reaped.
    Child(i32),
    /// There are children, all run.
    None,
    /// There are no children.
    NoChildren,
}

/// Looks for any child that ended, without reaping it. `block` waits for one.
pub fn ended_child(block: bool) -> Result<Ended, SysError> {
    let mut options = libc::WEXITED | libc::WNOWAIT;
    options |= if block { 0 } else { libc::WNOHANG };
    // SAFETY: siginfo_t is plain data, for which all zeroes is valid (and means "nobody" here).
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the kernel fills `info`, which outlives the call; P_ALL ignores the id.
        let answer = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        match (answer, Errno::last()) {
            (0, _) => break,
            (_, Errno::EINTR) => {}
            (_, Errno::ECHILD) => return Ok(Ended::NoChildren),
            (_, errno) => return Err(SysError::new("waitid", "P_ALL", errno)),
        }
    }
    // SAFETY: waitid filled the fields of a SIGCHLD, or left zeroes; both make si_pid readable.
    let pid = unsafe { info.si_pid() };
    Ok(if pid == 0 { Ended::None } else { Ended::Child(pid) })
}

/// Reaps the child with this number; for numbers that [`ended_child`] has just told.
pub fn reap_number(pid: i32) -> Result<(), SysError> {
    let none = || SysError::new("waitid", pid.to_string(), Errno::ECHILD);
    let id = rustix::process::Pid::from_raw(pid).ok_or_else(none)?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(id), options))
        .map(|_status| ())
        .map_err(SysError::rustix("waitid", || pid.to_string()))
}

/// When a process began: field 22 of `/proc/PID/stat`, clock ticks since boot (proc(5)). Together with
/// the number it names one process for ever. Needs `/proc` of the namespace that `pid` is counted in.
pub fn start_time(pid: i32) -> Result<u64, SysError> {
    use rustix::fs::{Mode, OFlags, open};
    let path = format!("/proc/{pid}/stat");
    let file = open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(SysError::rustix("open", || path.clone()))?;
    // 52 fields, the name of at most 64 bytes: fits by far.
    let mut text = [0_u8; 2048];
    let count = fd::read(&file, &mut text)?;
    let start = text.get(..count).and_then(start_of);
    start.ok_or_else(|| SysError::new("read", path, Errno::EINVAL))
}

/// Number of this process, in its own PID namespace.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn start_of(stat: &[u8]) -> Option<u64> {
    // The name is in brackets and may hold anything, so count from the last bracket: state is field 3.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end.checked_add(2)?..)?).ok()?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// Gives free memory of the heap back to the kernel (`malloc_trim(3)`), after a burst of work.
pub fn trim_heap() {
    // SAFETY: malloc_trim touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Arguments and environment of a program, laid out for `execve(2)` before the process is cloned.
#[derive(Debug)]
pub struct Arguments {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    _strings: (Vec<CString>, Vec<CString>),
}

impl Arguments {
    /// Lays out the two arrays.
    pub fn new(argv: Vec<CString>, env: Vec<CString>) -> Self {
        let pointers = |strings: &[CString]| {
            let end = std::iter::once(std::ptr::null());
            strings.iter().map(|text| text.as_ptr()).chain(end).collect::<Vec<_>>()
        };
        // The pointers lead into the heap buffers of the strings, which do not move with the vectors.
        Self { argv: pointers(&argv), env: pointers(&env), _strings: (argv, env) }
    }
}

/// `execve(2)`: becomes the program, or tells why not. Allocates nothing.
pub fn execve(path: &CStr, arguments: &Arguments) -> Errno {
    let (argv, env) = (arguments.argv.as_ptr(), arguments.env.as_ptr());
    // SAFETY: both arrays end with a null pointer and lead to strings that `arguments` owns, so they
    // live as long as the borrow; the call returns only when it failed.
    unsafe { libc::execve(path.as_ptr(), argv, env) };
    Errno::last()
}

/// `execveat(2)` with `AT_EMPTY_PATH`: becomes the program behind a descriptor.
pub fn exec_descriptor(program: impl AsFd, arguments: &Arguments) -> Errno {
    let fd = program.as_fd().as_raw_fd();
    let (argv, env) = (arguments.argv.as_ptr(), arguments.env.as_ptr());
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: as in `execve`; the path is an empty string, which the flag allows.
    unsafe { libc::syscall(libc::SYS_execveat, fd, empty, argv, env, flags) };
    Errno::last()
}

/// A program that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its number.
    pub pid: i32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
}

/// Starts the program behind a descriptor, with `socket` as descriptor 3, `/dev/null` as standard
/// input, and the caller's standard output and error. Nothing else is inherited. Returns after the
/// program was executed; the child allocates nothing, so threads of the caller do not matter.
pub fn spawn_role(
    program: impl AsFd,
    arguments: &Arguments,
    socket: impl AsFd,
) -> Result<Spawned, SysError> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
        .map_err(SysError::rustix("open", || "/dev/null"))?;
    let (input, output) = fd::pipe()?;
    // The child puts things at 0 and at 3; whatever it uses after that must not stand there.
    let (program, socket) = (fd::above_well_known(program)?, fd::above_well_known(socket)?);
    let output = fd::above_well_known(output)?;
    match clone3(CloneInto::default())? {
        Cloned::Parent { pid, pidfd } => {
            drop(output);
            let mut errno = [0_u8; 4];
            if fd::read(&input, &mut errno)? < errno.len() {
                return Ok(Spawned { pid, pidfd });
            }
            reap_blocking(&pidfd)?;
            let errno = Errno::from_raw(i32::from_ne_bytes(errno));
            Err(SysError::new("execveat", fd::describe(program), errno))
        }
        Cloned::Child => {
            let errno = become_role(program.as_fd(), arguments, socket.as_fd(), null.as_fd());
            let number = errno as i32;
            drop(fd::write(&output, &number.to_ne_bytes()));
            exit_now(127)
        }
    }
}

fn become_role(
    program: BorrowedFd<'_>,
    arguments: &Arguments,
    socket: BorrowedFd<'_>,
    null: BorrowedFd<'_>,
) -> Errno {
    let placed = fd::place(null, fd::Standard::Input).and_then(|()| fd::close_all_on_exec());
    if let Err(error) = placed.and_then(|()| place_well_known(socket)) {
        return error.errno();
    }
    if let Err(error) = crate::signal::unblock_all() {
        return error.errno();
    }
    exec_descriptor(program, arguments)
}

/// Makes `socket` descriptor 3, kept over exec. Whatever was there is closed: in the child only.
fn place_well_known(socket: BorrowedFd<'_>) -> Result<(), SysError> {
    let from = socket.as_raw_fd();
    let done = if from == fd::WELL_KNOWN {
        // SAFETY: fcntl(F_SETFD) with a number clears close-on-exec of a descriptor we borrow.
        unsafe { libc::fcntl(from, libc::F_SETFD, 0) }
    } else {
        // SAFETY: dup2 with two numbers touches no memory; this process is a fresh clone that ends in
        // exec, so no owned value is used again.
        unsafe { libc::dup2(from, fd::WELL_KNOWN) }
    };
    if done < 0 { Err(SysError::last("dup2", "3")) } else { Ok(()) }
}

/// All threads of this process share so many heaps (`mallopt(3)`, `M_ARENA_MAX`). glibc gives up to eight to
/// each processor, and what one thread's work left free in its heap is of no use to another's. Before threads
/// exist; another C library has no such heaps.
pub fn share_heaps(count: u8) {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number in the allocator; no memory of ours is touched. A refusal changes nothing.
        let _as_it_was_then = unsafe { libc::mallopt(libc::M_ARENA_MAX, count.into()) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Errno};
    use super::{
        CloneInto, Cloned, clone3, execve, exit_now, has_ended, own_pid, pidfd_open,
        pidfd_send_signal, reap, reap_blocking, spawn_role, start_of, start_time,
    };
    use std::os::fd::AsRawFd;

    fn child(code: i32) -> std::os::fd::OwnedFd {
        match clone3(CloneInto::default()).unwrap() {
            Cloned::Parent { pidfd, .. } => pidfd,
            Cloned::Child => exit_now(code),
        }
    }

    #[test]
    fn the_exit_code_of_a_clone_is_reaped_once() {
        let pidfd = child(42);
        assert_eq!(reap_blocking(&pidfd).unwrap(), 42);
        assert!(has_ended(&pidfd).unwrap());
        assert_eq!(reap(&pidfd).unwrap_err().errno(), Errno::ECHILD);
    }

    #[test]
    fn death_by_a_real_time_signal_is_128_and_its_number() {
        let Cloned::Parent { pidfd, .. } = clone3(CloneInto::default()).unwrap() else {
            loop {
                nix::unistd::pause();
            }
        };
        assert_eq!(reap(&pidfd).unwrap(), None);
        pidfd_send_signal(&pidfd, 40).unwrap();
        assert_eq!(reap_blocking(&pidfd).unwrap(), 168);
        assert_eq!(pidfd_send_signal(&pidfd, 15).unwrap_err().errno(), Errno::ESRCH);
    }

    #[test]
    fn a_missing_program_is_enoent() {
        let arguments = Arguments::new(vec![c"x".to_owned()], vec![]);
        assert_eq!(execve(c"/no/such/program", &arguments), Errno::ENOENT);
    }

    /// Wherever the caller's descriptors stand: a long-lived daemon has had 3 closed and given again.
    #[test]
    fn a_role_is_started_from_any_descriptor() {
        let low: Vec<_> = (0..8).map(|_| std::fs::File::open("/bin/true").unwrap()).collect();
        let arguments = Arguments::new(vec![c"true".to_owned()], vec![]);
        let mut numbers = Vec::new();
        for program in low {
            let (_ours, theirs) = crate::socket::pair().unwrap();
            let spawned = spawn_role(&program, &arguments, &theirs).unwrap();
            assert_eq!(reap_blocking(&spawned.pidfd).unwrap(), 0);
            numbers.push(program.as_raw_fd());
        }
        assert!(numbers.contains(&3), "no program stood at 3: {numbers:?}");
    }

    #[test]
    fn start_times_grow_and_survive_odd_names() {
        assert!(start_time(own_pid()).unwrap() >= start_time(1).unwrap());
        assert!(start_time(i32::MAX).unwrap_err().is_missing());
        let stat = b"7 (a) b) (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_of(stat), Some(4711));
        assert_eq!(pidfd_open(i32::MAX).unwrap_err().errno(), Errno::ESRCH);
    }
}
