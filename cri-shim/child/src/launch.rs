//! Starts the zygote: copies the running program into a sealed memory file and executes that, so that
//! no container can reach or change what zygote, monitors and children run (`reliability.md` class E).
//! Called once, before the daemon has threads. What the zygote does is `zygote.rs`.

use crate::error::ChildError;
use shim_model::wire::Process;
use shim_sys::process::Arguments;
use shim_sys::{fd, process, socket};
use std::os::fd::OwnedFd;

/// A running zygote, as the daemon holds it.
#[derive(Debug)]
pub struct ZygoteHandle {
    /// The daemon's end: `ToZygote` in, `FromZygote` out. Closing it ends the zygote, no monitor.
    pub socket: OwnedFd,
    /// Readable once the zygote ended.
    pub pidfd: OwnedFd,
    /// Which process it is.
    pub process: Process,
}

/// Starts a zygote from a sealed copy of this program, as `wherry zygote`, with an empty environment;
/// its standard output and error are the caller's. Returns after it was executed.
pub fn spawn_zygote() -> Result<ZygoteHandle, ChildError> {
    let program = sealed_copy()?;
    let (ours, theirs) = socket::pair().map_err(ChildError::system("make the zygote's socket"))?;
    let argv = vec![c"wherry".to_owned(), c"zygote".to_owned()];
    let spawned = process::spawn_role(&program, &Arguments::new(argv, Vec::new()), &theirs)
        .map_err(ChildError::system("start the zygote"))?;
    let start = process::start_time(spawned.pid)
        .map_err(ChildError::system("read when the zygote began"))?;
    let process = Process { pid: spawned.pid, start };
    Ok(ZygoteHandle { socket: ours, pidfd: spawned.pidfd, process })
}

fn sealed_copy() -> Result<OwnedFd, ChildError> {
    let mut program = std::fs::File::open("/proc/self/exe").map_err(ChildError::Copy)?;
    let copy = fd::memfd(c"wherry", true).map_err(ChildError::system("make a memory file"))?;
    let mut copy = std::fs::File::from(copy);
    std::io::copy(&mut program, &mut copy).map_err(ChildError::Copy)?;
    fd::seal(&copy).map_err(ChildError::system("seal the copy of the program"))?;
    Ok(copy.into())
}
