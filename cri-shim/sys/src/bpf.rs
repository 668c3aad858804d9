//! The device program of a cgroup v2 group (`bpf(2)`): load, attach, replace. What it allows is decided
//! and assembled in `shim-model` (`cgroup/devices.rs`); this file hands bytes to the kernel, whose
//! verifier judges them. It attaches nothing but `BPF_PROG_TYPE_CGROUP_DEVICE`.

use crate::error::SysError;
use crate::fd;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Bytes of one `struct bpf_insn`.
const INSTRUCTION_BYTES: usize = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE` (linux/bpf.h).
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: groups below may attach more, and all programs on the way up must agree.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_CGROUP_MAX_PROGS`: the kernel lets no group have more.
const MOST_PROGRAMS: usize = 64;

/// `enum bpf_cmd`, the part used here.
#[derive(Clone, Copy, Debug)]
enum Command {
    Load = 5,
    Attach = 8,
    Detach = 9,
    ById = 13,
    Query = 16,
}

/// `union bpf_attr` of `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    /// Linux 6.17 writes a revision at byte 56 without looking at the size that it was given, so the
    /// whole structure must be there.
    newer: [u64; 4],
}

/// Limits which devices the processes of a cgroup v2 group, and of groups below it, may make, read
/// and write. `program` is an array of `struct bpf_insn` (8 bytes each, native byte order). Earlier
/// programs of this very group are replaced without a moment in which none is in force; if that fails
/// half-way, both are, and an access needs the consent of each.
///
/// `BPF_PROG_TYPE_CGROUP_DEVICE` is Linux 4.15. Needs `CAP_BPF` and `CAP_NET_ADMIN` (before Linux 5.8
/// `CAP_SYS_ADMIN`), and before 5.11 room in `RLIMIT_MEMLOCK` (else `EPERM`). A program that the
/// verifier does not accept is `EINVAL` or `EACCES`; `cgroup` outside cgroup v2 is `EBADF`.
pub fn limit_devices(cgroup: impl AsFd, program: &[u8]) -> Result<(), SysError> {
    let old = attached(&cgroup)?;
    let new = load(program)?;
    attachment(Command::Attach, &cgroup, &new)?;
    for id in old {
        match by_id(id).and_then(|program| attachment(Command::Detach, &cgroup, &program)) {
            Err(error) if !error.is_missing() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The ids of the device programs attached to this very group (`BPF_PROG_QUERY`, Linux 4.15), in the
/// order in which they run. Needs `CAP_NET_ADMIN`.
pub fn attached(cgroup: impl AsFd) -> Result<Vec<u32>, SysError> {
    let name = || format!("BPF_PROG_QUERY, {}", fd::describe(&cgroup));
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut attr = QueryAttr {
        target: number(&cgroup),
        kind: ATTACH_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or_default(),
        ..QueryAttr::default()
    };
    // SAFETY: QueryAttr has the layout of this command; the kernel writes at most `count` numbers to
    // `ids`, which is as long and outlives the call.
    unsafe { bpf(Command::Query, &mut attr) }
        .map_err(|errno| SysError::new("bpf", name(), errno))?;
    let count = usize::try_from(attr.count).unwrap_or(MOST_PROGRAMS);
    Ok(ids.iter().take(count).copied().collect())
}

fn load(program: &[u8]) -> Result<OwnedFd, SysError> {
    let wrong = |errno| SysError::new("bpf", "BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE", errno);
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION_BYTES) {
        return Err(wrong(Errno::EINVAL));
    }
    // No helper is called that asks for a GPL program, so the licence is the project's.
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len() / INSTRUCTION_BYTES)
            .map_err(|_too_long| wrong(Errno::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: *b"wherry_devices\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: LoadAttr has the layout of this command; the kernel reads `count` instructions, as many
    // as the slice holds, and a string that ends in NUL. It needs no alignment, because it copies.
    let answer = unsafe { bpf(Command::Load, &mut attr) }.map_err(wrong)?;
    // SAFETY: the call succeeded, so this is a descriptor (close-on-exec) that the kernel has just
    // opened for us and nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

fn by_id(id: u32) -> Result<OwnedFd, SysError> {
    let mut attr = ByIdAttr { id, ..ByIdAttr::default() };
    // SAFETY: ByIdAttr has the layout of this command and holds no pointer.
    let answer = unsafe { bpf(Command::ById, &mut attr) }
        .map_err(|errno| SysError::new("bpf", format!("BPF_PROG_GET_FD_BY_ID, {id}"), errno))?;
    // SAFETY: the call succeeded, so this is a descriptor (close-on-exec) that the kernel has just
    // opened for us and nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

fn attachment(command: Command, cgroup: impl AsFd, program: &OwnedFd) -> Result<(), SysError> {
    let name = || format!("{command:?}, {}, BPF_CGROUP_DEVICE", fd::describe(&cgroup));
    let flags = if matches!(command, Command::Attach) { ALLOW_MULTI } else { 0 };
    let mut attr = AttachAttr {
        target: number(&cgroup),
        program: number(program),
        kind: ATTACH_DEVICE,
        flags,
    };
    // SAFETY: AttachAttr has the layout of both commands and holds no pointer; both descriptors are
    // borrowed for the call.
    unsafe { bpf(command, &mut attr) }
        .map(|_zero| ())
        .map_err(|errno| SysError::new("bpf", name(), errno))
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// `bpf(2)`.
///
/// # Safety
/// `T` is laid out as the part of `union bpf_attr` that `command` uses, and what its pointers name
/// may be read or written by the kernel as that command does.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> Result<i32, Errno> {
    let attr = std::ptr::from_mut(attr);
    // SAFETY: the kernel looks at `size` bytes behind `attr`, which is what T has; the caller answers
    // for the rest.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command as i32, attr, size_of::<T>()) };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        Ok(_) | Err(_) => Err(Errno::last()),
    }
}

#[cfg(test)]
mod tests {
    use super::{attached, limit_devices};
    use crate::error::Errno;
    use std::fs::File;
    use std::path::PathBuf;
    use std::process::Command;

    /// `mov r0, ANSWER; exit`.
    fn always(answer: u8) -> [u8; 16] {
        [0xb7, 0, 0, 0, answer, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]
    }

    /// A group of its own below the cgroup2 mount of this machine, taken away at the end.
    struct Group(PathBuf);

    impl Group {
        fn new(name: &str) -> Option<Self> {
            let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
            let mount = table.lines().find_map(|line| {
                let mut words = line.split(' ').skip(1);
                let path = words.next()?;
                (words.next()? == "cgroup2").then_some(path)
            });
            let Some(mount) = mount.filter(|_| nix::unistd::geteuid().is_root()) else {
                eprintln!("skipped: needs root and a cgroup2 mount");
                return None;
            };
            let name = format!("shim-sys-bpf-{name}-{}", std::process::id());
            let path = PathBuf::from(mount).join(name);
            std::fs::create_dir(&path).unwrap();
            Some(Self(path))
        }

        fn open(&self) -> File {
            File::open(&self.0).unwrap()
        }

        /// Whether a process in this group may read /dev/zero.
        fn may_read(&self) -> bool {
            // The shell puts itself in, so that the harness stays where it is.
            let script = "echo $$ >\"$0/cgroup.procs\" && : </dev/zero";
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", script]).arg(&self.0).stderr(std::process::Stdio::null());
            shell.status().unwrap().success()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            // A process that has just been reaped may still be leaving.
            while matches!(std::fs::remove_dir(&self.0), Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy)
            {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn root_a_program_denies_until_it_is_replaced() {
        let Some(group) = Group::new("replace") else { return };
        assert!(group.may_read());
        limit_devices(group.open(), &always(0)).unwrap();
        let first = attached(group.open()).unwrap();
        assert!(!group.may_read());
        limit_devices(group.open(), &always(1)).unwrap();
        let second = attached(group.open()).unwrap();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second);
        assert!(group.may_read());
    }

    #[test]
    fn root_what_the_verifier_refuses_leaves_the_old_program() {
        let Some(group) = Group::new("refuse") else { return };
        limit_devices(group.open(), &always(0)).unwrap();
        // r0 is never set.
        let error = limit_devices(group.open(), &always(1)[8..]).unwrap_err();
        assert!(matches!(error.errno(), Errno::EINVAL | Errno::EACCES), "{error}");
        assert!(!group.may_read());
    }

    #[test]
    fn root_a_folder_that_is_no_cgroup_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let error = limit_devices(File::open("/").unwrap(), &always(1)).unwrap_err();
        assert_eq!(error.errno(), Errno::EBADF);
    }

    #[test]
    fn half_an_instruction_is_refused() {
        assert_eq!(super::load(&[0; 12]).unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(super::load(&[]).unwrap_err().errno(), Errno::EINVAL);
    }
}
