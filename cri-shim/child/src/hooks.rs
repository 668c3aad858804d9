//! Runs a hook of a device's vendor: a program of the node, as a child of the container's first process
//! before that becomes the program. It sees the node's mounts with the container's root as one folder among
//! them; it gets the vendor's environment, the container's state as input, and nothing else that is open.
//! Nothing of the image has run by then. Unlike the walk around it, this allocates.

use shim_model::limits;
use shim_sys::error::{Errno, SysError};
use shim_sys::fd::{self, Standard};
use shim_sys::process::{self, Arguments, CloneInto, Cloned};
use shim_sys::{credentials, signal};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// SIGKILL.
const KILL: i32 = 9;

/// Runs it and waits for its success. What it said is part of the error.
pub(crate) fn run(
    path: &CStr,
    (argv, env): (&[CString], &[CString]),
    state: &[u8],
    patience: Duration,
) -> Result<(), SysError> {
    let input = fd::sealed_memfd(c"state", state)?;
    // A file: a pipe that nobody reads would stop a hook that says much.
    let output = fd::memfd(c"hook", false)?;
    let arguments = Arguments::new(argv.to_vec(), env.to_vec());
    match process::clone3(CloneInto::default())? {
        Cloned::Child => {
            let errno = match prepare(&input, &output) {
                Ok(()) => process::execve(path, &arguments),
                Err(error) => error.errno(),
            };
            drop(fd::write_all(&output, errno.desc().as_bytes()));
            process::exit_now(127)
        }
        Cloned::Parent { pidfd, .. } => {
            let ended = process::wait_end(&pidfd, patience)?;
            if !ended {
                process::pidfd_send_signal(&pidfd, KILL)?;
            }
            let code = process::reap_blocking(&pidfd)?;
            let why = match (ended, code) {
                (true, 0) => return Ok(()),
                (true, code) => format!("it ended with code {code}"),
                (false, _) => format!("it did not end within {patience:?}"),
            };
            let text = format!("{why}, and said {:?}", said(&output));
            Err(SysError::new("hook", text, Errno::ECANCELED))
        }
    }
}

fn prepare(input: &OwnedFd, output: &OwnedFd) -> Result<(), SysError> {
    fd::place(input, Standard::Input)?;
    fd::place(output, Standard::Output)?;
    fd::place(output, Standard::Error)?;
    fd::close_all_on_exec()?;
    credentials::set_umask(0o022);
    credentials::change_folder(c"/")?;
    signal::unblock_all()
}

fn said(output: &OwnedFd) -> String {
    let mut buffer = [0_u8; limits::HOOK_OUTPUT_BYTES];
    let text = fd::read_start(output, &mut buffer).unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::time::{Duration, Instant};

    fn shell(script: &std::ffi::CStr, patience: Duration) -> Result<(), String> {
        let argv = [c"sh".to_owned(), c"-c".to_owned(), script.to_owned()];
        let env = [c"GIVEN=yes".to_owned(), c"PATH=/bin:/usr/bin".to_owned()];
        run(c"/bin/sh", (&argv, &env), b"{\"id\":\"x\"}", patience).map_err(|e| e.to_string())
    }

    #[test]
    fn it_gets_its_state_and_its_environment_and_nothing_else() {
        let patience = Duration::from_secs(20);
        let script =
            c"test \"$(cat)\" = '{\"id\":\"x\"}' && test \"$GIVEN\" = yes && test -z \"$HOME\" && \
                       test \"$(pwd)\" = / && test \"$(echo /proc/self/fd/*)\" = \
                       '/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3'";
        // Descriptor 3 is the shell's own, of the folder that it lists.
        assert_eq!(shell(script, patience), Ok(()));
    }

    #[test]
    fn a_failure_is_told_with_what_it_said() {
        let patience = Duration::from_secs(20);
        let failed = shell(c"echo no device; exit 3", patience).unwrap_err();
        assert!(failed.contains("code 3") && failed.contains("no device"), "{failed}");
        let missing = run(c"/no/such/hook", (&[], &[]), b"", patience).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let begun = Instant::now();
        let late = shell(c"sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("within 50ms"), "{late}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
