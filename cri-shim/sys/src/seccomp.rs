//! Installs a compiled seccomp filter (`seccomp(2)`). What it allows is decided and compiled in
//! `shim-model`. Allocates nothing, so that it may run between clone and exec.

use crate::error::SysError;
use nix::errno::Errno;

/// Installs a classic BPF program: `filter` is an array of `struct sock_filter` (8 bytes each, native
/// byte order), 1 to 4096 of them. `log` asks for `SECCOMP_FILTER_FLAG_LOG` (Linux 4.14). Needs
/// `no_new_privs` or `CAP_SYS_ADMIN`. A wrong length or program is `EINVAL`.
pub fn install(filter: &[u8], log: bool) -> Result<(), SysError> {
    let wrong = || SysError::new("seccomp", String::new(), Errno::EINVAL);
    let (instructions, rest) = filter.as_chunks::<8>();
    let length = u16::try_from(instructions.len()).map_err(|_too_long| wrong())?;
    if !rest.is_empty() || length == 0 {
        return Err(wrong());
    }
    // sock_filter holds a u32 and so wants an alignment that bytes do not have; the kernel copies it
    // from user memory with no regard to alignment.
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads `len` instructions from `filter`, as many as the slice holds, and
    // writes nothing; both outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(SysError::last("seccomp", String::new())) }
}

#[cfg(test)]
mod tests {
    use super::install;
    use crate::error::Errno;
    use crate::process::{CloneInto, Cloned, clone3, exit_now, reap_blocking};

    #[test]
    fn half_an_instruction_and_none_are_refused() {
        assert_eq!(install(&[0; 7], false).unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(install(&[], false).unwrap_err().errno(), Errno::EINVAL);
    }

    #[test]
    fn an_installed_filter_is_obeyed() {
        // ret ERRNO | 77 for every call: even exit_group fails, so the child is ended by a fault.
        let all: [u8; 8] = [0x06, 0, 0, 0, 77, 0, 0x05, 0];
        match clone3(CloneInto::default()).unwrap() {
            Cloned::Parent { pidfd, .. } => assert!(reap_blocking(pidfd).unwrap() > 128),
            Cloned::Child => {
                let ready = crate::credentials::no_new_privs();
                if ready.and_then(|()| install(&all, true)).is_err() {
                    exit_now(1);
                }
                exit_now(0)
            }
        }
    }
}
