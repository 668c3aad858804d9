//! The built-in seccomp profile under a real kernel: this very program is executed again inside the
//! filter that an ordinary container gets, and does there what ordinary programs do, and what they must
//! not. Needs no root: the filter is installed with `no_new_privs`.

use shim_model::seccomp::compile::SeccompFacts;
use shim_model::seccomp::default;
use shim_model::seccomp::names::Machine;
use shim_sys::error::Errno;
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, Arguments, CloneInto, Cloned};
use shim_sys::{credentials, seccomp};
use std::ffi::CString;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;

#[test]
fn a_program_lives_in_the_default_filter() {
    let machine = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
    let facts = SeccompFacts { machine, kernel: (6, 1), capabilities: 0 };
    let filter = default::filter(&facts).unwrap();
    assert!(filter.skipped.is_empty());
    let bytes = filter.to_bytes();
    let path = CString::new(std::env::current_exe().unwrap().into_os_string().into_vec()).unwrap();
    let words = [path.clone(), c"--ignored".into(), c"--exact".into(), c"inside".into()];
    let arguments = Arguments::new(words.into(), Vec::new());
    match process::clone3(CloneInto::default()).unwrap() {
        Cloned::Parent { pidfd, .. } => assert_eq!(process::reap_blocking(pidfd).unwrap(), 0),
        // Other threads of this process may hold locks: nothing is allocated here.
        Cloned::Child => {
            let ready = credentials::no_new_privs().and_then(|()| seccomp::install(&bytes, false));
            if ready.is_ok() {
                let _not_executed = process::execve(&path, &arguments);
            }
            process::exit_now(99)
        }
    }
}

#[test]
#[ignore = "executed inside the filter by the other test"]
fn inside() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    if !status.contains("Seccomp:\t2") {
        eprintln!("skipped: not inside a filter");
        return;
    }
    // A thread: the C library tries clone3, is told that there is none, and takes clone.
    std::thread::spawn(|| ()).join().unwrap();
    assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let refused = [
        namespace::unshare(&[Namespace::Uts]).unwrap_err(),
        namespace::set_hostname(b"elsewhere").unwrap_err(),
        credentials::new_keyring().unwrap_err(),
    ];
    assert_eq!(refused.map(|error| error.errno()), [Errno::EPERM; 3]);
    let cloned = process::clone3(CloneInto::default()).unwrap_err();
    assert_eq!(cloned.errno(), Errno::ENOSYS);
}
