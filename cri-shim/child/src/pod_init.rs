//! pod-init: the first process of a PID namespace that a pod's containers share. It reaps what is
//! orphaned there and does nothing else: no files, no privileges, no way to be told anything. It dies
//! with its monitor, for a dead monitor ends its pod; its own end is the end of every process in
//! the namespace (`pid_namespaces(7)`).

use shim_model::wire::PodPlan;
use shim_sys::credentials::{self, Capabilities};
use shim_sys::error::SysError;
use shim_sys::label::{Attribute, Kind};
use shim_sys::mount::{self, Flags};
use shim_sys::process::{self, Ended};
use shim_sys::procfs::Proc;
use shim_sys::{fd, signal};
use std::ffi::CStr;

/// Becomes pod-init, in a clone that has its own mount and PID namespace. `told` is closed once it is
/// sealed off. Ends only by a signal from outside the namespace.
pub(crate) fn run(told: &std::os::fd::OwnedFd, plan: &PodPlan) -> ! {
    if let Err(error) = seal(plan) {
        // The monitor reads the errno; pod-init has no other voice.
        let errno = error.errno() as i32;
        drop(fd::write(told, &errno.to_ne_bytes()));
        process::exit_now(1);
    }
    drop(fd::close_all_but(&mut []));
    loop {
        match process::ended_child(true) {
            Ok(Ended::Child(pid)) => drop(process::reap_number(pid)),
            // No children yet: sleep until a signal says that one ended. SIGCHLD is blocked, so none
            // is lost between the look and the wait.
            Ok(Ended::None | Ended::NoChildren) | Err(_) => signal::wait_for_child(),
        }
    }
}

/// Leaves everything behind: an empty read-only root (`/proc/1/root` is visible to containers with
/// `CAP_SYS_PTRACE`), no capabilities, a session of its own, the AppArmor profile that the pod is to have.
fn seal(plan: &PodPlan) -> Result<(), SysError> {
    let own =
        |profile| Attribute::open(&Proc::own()?, Kind::ProfileNow).map(|file| (file, profile));
    let confined = plan.profile.as_deref().map(own).transpose()?;
    credentials::new_session()?;
    credentials::set_name(c"wherry-podinit")?;
    let mut options: Vec<(&CStr, &CStr)> = vec![(c"mode", c"0555"), (c"size", c"4k")];
    options.extend(plan.files.as_deref().map(|label| (c"context", label)));
    let empty = mount::tmpfs(&options, Flags::READONLY)?;
    mount::attach_path(&empty, c"/r")?;
    mount::pivot(&empty)?;
    credentials::limit_bounding(0)?;
    credentials::set_capabilities(Capabilities::default())?;
    // It executes nothing, so a label for the next program would be none. Last: it may forbid all of the above.
    confined.map_or(Ok(()), |(file, profile)| file.set(profile))
}
