//! Credentials of the calling process: ids, capabilities, `no_new_privs`, limits, session keyring; and
//! what is read back of them. Everything here allocates nothing, so that it may run between clone and
//! exec. All of it acts on the calling thread; callers have one.

use crate::error::SysError;
use nix::errno::Errno;
use rustix::fs::Mode;
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitySet;
use std::os::fd::AsFd;

/// Capability sets as bit masks (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec of a file that has inheritable ones.
    pub inheritable: u64,
}

fn done(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> SysError {
    SysError::rustix(call, String::new)
}

/// `prctl` with numbers only.
fn prctl(option: libc::c_int, second: u64, third: u64) -> Result<libc::c_int, SysError> {
    // SAFETY: the options used in this file take numbers only and touch no memory of ours; the last
    // two arguments must be zero for some of them.
    let answer = unsafe { libc::prctl(option, second, third, 0_u64, 0_u64) };
    if answer < 0 { Err(SysError::last("prctl", String::new())) } else { Ok(answer) }
}

/// `setgroups(2)`: the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<(), SysError> {
    // SAFETY: gid_t is u32; the kernel reads `len` of them from a slice that outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(SysError::last("setgroups", String::new())) }
}

/// Real, effective and saved user id (`setresuid(2)`). `u32::MAX` is `EINVAL`: it means "as it is".
pub fn set_uid(uid: u32) -> Result<(), SysError> {
    let uid = rustix::process::Uid::from_raw(known(uid)?);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(done("setresuid"))
}

/// Real, effective and saved group id (`setresgid(2)`). `u32::MAX` is `EINVAL`.
pub fn set_gid(gid: u32) -> Result<(), SysError> {
    let gid = rustix::process::Gid::from_raw(known(gid)?);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(done("setresgid"))
}

fn known(id: u32) -> Result<u32, SysError> {
    if id == u32::MAX { Err(SysError::new("setresid", "-1", Errno::EINVAL)) } else { Ok(id) }
}

/// True if real, effective and saved ids are all these (`getresuid(2)`, `getresgid(2)`).
pub fn ids_are(uid: u32, gid: u32) -> Result<bool, SysError> {
    let user = nix::unistd::getresuid().map_err(SysError::nix("getresuid", String::new))?;
    let group = nix::unistd::getresgid().map_err(SysError::nix("getresgid", String::new))?;
    let users = [user.real, user.effective, user.saved].map(nix::unistd::Uid::as_raw);
    let groups = [group.real, group.effective, group.saved].map(nix::unistd::Gid::as_raw);
    Ok(users == [uid; 3] && groups == [gid; 3])
}

/// `PR_SET_KEEPCAPS`: keep permitted capabilities while the user id changes; exec clears it.
pub fn keep_capabilities() -> Result<(), SysError> {
    rustix::thread::set_keep_capabilities(true).map_err(done("prctl"))
}

/// `capset(2)`.
pub fn set_capabilities(sets: Capabilities) -> Result<(), SysError> {
    let sets = rustix::thread::CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(done("capset"))
}

/// `capget(2)`.
pub fn capabilities() -> Result<Capabilities, SysError> {
    let sets = rustix::thread::capabilities(None).map_err(done("capget"))?;
    Ok(Capabilities {
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
    })
}

/// The bounding set, and every capability that this kernel knows: one row of questions
/// (`PR_CAPBSET_READ`) tells both, because `EINVAL` marks the first unknown one.
pub fn bounding() -> Result<Bounding, SysError> {
    let mut found = Bounding { set: 0, known: 0 };
    for number in 0..64_u64 {
        match prctl(libc::PR_CAPBSET_READ, number, 0) {
            Ok(value) => {
                found.set |= if value == 0 { 0 } else { 1 << number };
                found.known |= 1 << number;
            }
            Err(error) if error.errno() == Errno::EINVAL => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// What the bounding set tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounding {
    /// Capabilities in it.
    pub set: u64,
    /// Capabilities of this kernel.
    pub known: u64,
}

/// The ambient set (Linux 4.3). Every capability in it is permitted and inheritable (capabilities(7)),
/// so only those that are both are asked for.
pub fn ambient(sets: Capabilities) -> Result<u64, SysError> {
    let is_set = u64::from(libc::PR_CAP_AMBIENT_IS_SET.unsigned_abs());
    let possible = sets.permitted & sets.inheritable;
    let mut found = 0;
    for number in (0..64_u64).filter(|number| possible & (1 << number) != 0) {
        if prctl(libc::PR_CAP_AMBIENT, is_set, number)? != 0 {
            found |= 1 << number;
        }
    }
    Ok(found)
}

/// Drops everything that is not in `keep` from the bounding set (`PR_CAPBSET_DROP`).
pub fn limit_bounding(keep: u64) -> Result<(), SysError> {
    for number in 0..64_u64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Ok(_) => {}
            Err(error) if error.errno() == Errno::EINVAL => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the ambient set exactly this one; it must be permitted and inheritable.
pub fn set_ambient(set: u64) -> Result<(), SysError> {
    let clear = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    let raise = u64::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
    prctl(libc::PR_CAP_AMBIENT, clear, 0)?;
    for number in (0..64_u64).filter(|number| set & (1 << number) != 0) {
        prctl(libc::PR_CAP_AMBIENT, raise, number)?;
    }
    Ok(())
}

/// `PR_SET_NO_NEW_PRIVS`: exec gives no privileges any more, for ever.
pub fn no_new_privs() -> Result<(), SysError> {
    rustix::thread::set_no_new_privs(true).map_err(done("prctl"))
}

/// True once [`no_new_privs`] was called here or in an ancestor.
pub fn has_no_new_privs() -> Result<bool, SysError> {
    rustix::thread::no_new_privs().map_err(done("prctl"))
}

/// `PR_SET_DUMPABLE` 0: no core files, `/proc/PID` belongs to root, ptrace needs `CAP_SYS_PTRACE`.
/// Kept over fork, reset by exec.
pub fn not_dumpable() -> Result<(), SysError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(done("prctl"))
}

/// `PR_SET_CHILD_SUBREAPER`: orphaned descendants become children of this process.
pub fn become_subreaper() -> Result<(), SysError> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(|_zero| ())
}

/// `PR_SET_PDEATHSIG` with SIGKILL: this process ends when the thread that cloned it does. A parent
/// that ended before is not noticed; the caller asks it for a word afterwards.
pub fn end_with_parent() -> Result<(), SysError> {
    prctl(libc::PR_SET_PDEATHSIG, u64::from(libc::SIGKILL.unsigned_abs()), 0).map(|_zero| ())
}

/// `PR_SET_NAME`: the name that ps(1) shows, at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) -> Result<(), SysError> {
    rustix::thread::set_name(name).map_err(done("prctl"))
}

/// `setsid(2)`; a process that leads a group already is left as it is.
pub fn new_session() -> Result<(), SysError> {
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(done("setsid")(error)),
    }
}

/// `umask(2)`.
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
}

/// A limit of `prlimit(2)`; `u64::MAX` = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// How far the soft one may be raised.
    pub hard: u64,
}

/// Sets a limit (`RLIMIT_*` number) of this process; tells the one before.
pub fn set_limit(resource: u32, limit: Limit) -> Result<(), SysError> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads `new`, which outlives the call; null asks for no answer.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const new, old) };
    if answer == 0 { Ok(()) } else { Err(SysError::last("prlimit64", String::new())) }
}

/// Reads a limit of this process.
pub fn limit(resource: u32) -> Result<Limit, SysError> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes `old`, which outlives the call; null changes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut old) };
    if answer == 0 {
        Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
    } else {
        Err(SysError::last("prlimit64", String::new()))
    }
}

/// Lets this process open as many descriptors as its hard limit allows. Not for processes that run a
/// program of somebody else: some of those size a table by the limit.
pub fn raise_descriptors() -> Result<(), SysError> {
    let known = limit(libc::RLIMIT_NOFILE)?;
    set_limit(libc::RLIMIT_NOFILE, Limit { soft: known.hard, hard: known.hard })
}

/// A new anonymous session keyring (`KEYCTL_JOIN_SESSION_KEYRING`, keyctl(2)). A kernel without
/// keyrings (`ENOSYS`) has nothing to share, which is as good.
pub fn new_keyring() -> Result<(), SysError> {
    let none = std::ptr::null::<libc::c_char>();
    let join = libc::KEYCTL_JOIN_SESSION_KEYRING;
    // SAFETY: a null name asks for an anonymous keyring; nothing of ours is touched.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, join, none) };
    match (answer, Errno::last()) {
        (0.., _) | (_, Errno::ENOSYS) => Ok(()),
        (_, errno) => Err(SysError::new("keyctl", String::new(), errno)),
    }
}

/// `chdir(2)`, then asks whether the folder is below the root: `EXDEV` if it is not (getcwd(2),
/// "(unreachable)"), as behind a descriptor that leaked from outside.
pub fn change_folder(path: &std::ffi::CStr) -> Result<(), SysError> {
    rustix::process::chdir(path).map_err(done("chdir"))?;
    let mut buffer = [0_u8; 4097];
    // SAFETY: the kernel writes at most the told size into a buffer that outlives the call.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    match (length, buffer.first()) {
        (1.., Some(b'/')) => Ok(()),
        (1.., _) => Err(SysError::new("getcwd", String::new(), Errno::EXDEV)),
        _ => Err(SysError::last("getcwd", String::new())),
    }
}

/// Gives a pipe to this user, so that a program without privileges may open its `/dev/stdout` again.
/// What is no pipe is left alone, what may not be changed as well.
pub fn give_pipe(stream: impl AsFd, uid: u32) {
    use rustix::fs::{FileType, fchown, fstat};
    let Ok(stat) = fstat(&stream) else { return };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != uid {
        fchown(&stream, Some(rustix::process::Uid::from_raw(uid)), None).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Capabilities, Limit, ambient, bounding, capabilities, change_folder, ids_are,
        keep_capabilities, limit, limit_bounding, new_keyring, no_new_privs, set_ambient,
        set_capabilities, set_gid, set_groups, set_limit, set_uid,
    };
    use crate::process::{CloneInto, Cloned, clone3, exit_now, reap_blocking};

    /// Runs `act` in a process of its own; its answer is the exit code.
    fn apart(act: impl FnOnce() -> Result<bool, crate::error::SysError>) -> Option<i32> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        match clone3(CloneInto::default()).unwrap() {
            Cloned::Parent { pidfd, .. } => Some(reap_blocking(pidfd).unwrap()),
            Cloned::Child => exit_now(match act() {
                Ok(true) => 0,
                Ok(false) => 1,
                Err(error) => error.errno() as i32,
            }),
        }
    }

    #[test]
    fn root_a_user_keeps_exactly_the_capabilities_that_were_asked_for() {
        let sets = Capabilities { effective: 1 << 10, permitted: 1 << 10, inheritable: 0 };
        let code = apart(|| {
            limit_bounding(1 << 10)?;
            keep_capabilities()?;
            set_groups(&[7, 8])?;
            set_gid(1001)?;
            set_uid(1000)?;
            set_capabilities(sets)?;
            set_ambient(0)?;
            no_new_privs()?;
            let have = capabilities()?;
            let read = (ids_are(1000, 1001)?, have, bounding()?.set, ambient(have)?);
            Ok(read == (true, sets, 1 << 10, 0) && set_uid(0).is_err())
        });
        assert!(matches!(code, None | Some(0)), "{code:?}");
    }

    #[test]
    fn root_an_ambient_capability_is_seen() {
        let both = 1 << 10 | 1 << 12;
        let sets = Capabilities { effective: both, permitted: both, inheritable: both };
        let code = apart(|| {
            set_capabilities(sets)?;
            set_ambient(1 << 12)?;
            let bounding = bounding()?;
            Ok(ambient(capabilities()?)? == 1 << 12 && bounding.set & !bounding.known == 0)
        });
        assert!(matches!(code, None | Some(0)), "{code:?}");
    }

    #[test]
    fn root_limits_keyring_and_folder_are_in_force() {
        let code = apart(|| {
            let wanted = Limit { soft: 100, hard: 200 };
            set_limit(7, wanted)?;
            new_keyring()?;
            change_folder(c"/proc")?;
            Ok(limit(7)? == wanted && change_folder(c"/no/such").is_err())
        });
        assert!(matches!(code, None | Some(0)), "{code:?}");
    }

    #[test]
    fn the_number_that_means_unchanged_is_no_id() {
        assert!(set_uid(u32::MAX).is_err() && set_gid(u32::MAX).is_err());
    }
}
