//! What a clone does to become a handler's program: into the container's cgroups where the program wants it
//! so, then back to the node, whose program it is: its mounts, network, host name. What the program is to find
//! in the bundle is attached in a copy of the node's mounts that is gone with it. It ends with the monitor.

use super::program::{By, Call};
use crate::monitor::{FILES, group};
use shim_model::handler::order::Place;
use shim_sys::credentials::{self, Limit};
use shim_sys::error::SysError;
use shim_sys::fd::{self, Standard};
use shim_sys::mount::{self, Change, Flags, Propagation};
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, Arguments};
use shim_sys::{path, signal};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where v2 is beside v1, as every program looks for it.
const BESIDE: &CStr = c"/sys/fs/cgroup/unified";

/// Everything that the clone uses, laid out before it exists.
#[derive(Debug)]
pub(crate) struct Dress<'a> {
    /// Lets it go on, once.
    pub(crate) go: &'a OwnedFd,
    /// Where it says why it could not become the program.
    pub(crate) log: &'a OwnedFd,
    pub(crate) call: &'a Call<'a>,
    pub(crate) tasks: Option<&'a OwnedFd>,
    pub(crate) files: Option<Limit>,
    pub(crate) arguments: &'a Arguments,
}

impl<'a> Dress<'a> {
    /// All that the clone keeps open until it is the program.
    pub(crate) fn keep(&self) -> Vec<BorrowedFd<'a>> {
        let mut keep = vec![self.go.as_fd(), self.log.as_fd()];
        keep.extend(self.call.streams);
        keep.extend(self.call.by.node.iter().map(AsFd::as_fd));
        keep.extend(self.call.trees.iter().map(|(_, tree)| tree.as_fd()));
        keep.extend(self.joined().iter().chain(self.tasks).map(AsFd::as_fd));
        keep
    }

    fn joined(&self) -> &'a [OwnedFd] {
        match (self.call.by.program.place, self.call.group) {
            (Place::Groups, Some(group)) => &group.join,
            (Place::Groups | Place::Unified | Place::Outside, _) => &[],
        }
    }

    /// The clone's life up to the program's.
    pub(crate) fn begin(&self, keep: &mut [BorrowedFd<'_>]) -> ! {
        let said = match self.put_on(keep) {
            Ok(()) => {
                let path = &self.call.by.program.path;
                let errno = process::execve(path, self.arguments);
                SysError::new("execve", path.to_string_lossy(), errno)
            }
            Err(error) => error,
        };
        let text = format!("{said}: {}\n", said.errno().desc());
        drop(fd::write_all(self.log, text.as_bytes()));
        process::exit_now(127)
    }

    fn put_on(&self, keep: &mut [BorrowedFd<'_>]) -> Result<(), SysError> {
        fd::close_all_but(keep)?;
        if fd::read(self.go, &mut [0])? == 0 {
            // The monitor died before it wrote this clone down.
            process::exit_now(1);
        }
        credentials::end_with_parent()?;
        if let Some(files) = self.files {
            credentials::set_limit(FILES, files)?;
        }
        group::join(self.joined())?;
        if let Some(tasks) = self.tasks {
            fd::write_all(tasks, b"0")?;
        }
        self.go_home()?;
        credentials::new_session()?;
        credentials::set_umask(0o022);
        let [input, output, error] = self.call.streams;
        fd::place(input, Standard::Input)?;
        fd::place(output, Standard::Output)?;
        fd::place(error, Standard::Error)?;
        credentials::change_folder(c"/")?;
        signal::unblock_all()?;
        fd::close_all_on_exec()
    }

    fn go_home(&self) -> Result<(), SysError> {
        let By { program, node, .. } = self.call.by;
        let [mounts, network, uts, ipc] = node;
        namespace::join(network, &[Namespace::Network])?;
        namespace::join(uts, &[Namespace::Uts])?;
        namespace::join(ipc, &[Namespace::Ipc])?;
        namespace::join(mounts, &[Namespace::Mount])?;
        if self.call.trees.is_empty() && !program.hide_v2 {
            return Ok(());
        }
        namespace::unshare(&[Namespace::Mount])?;
        if program.hide_v2 {
            keep_private(BESIDE)?;
            mount::attach_path(mount::tmpfs(&[], Flags::READONLY)?, BESIDE)?;
        }
        if self.call.trees.is_empty() {
            return Ok(());
        }
        // The other mounts stay in their peer groups: those of volumes may be asked to propagate.
        keep_private(&program.mount)?;
        self.call.trees.iter().try_for_each(|(place, tree)| mount::attach_path(tree, place))
    }
}

/// What is attached to this mount appears nowhere else.
fn keep_private(place: &CStr) -> Result<(), SysError> {
    let folder = path::open_folder(Path::new(OsStr::from_bytes(place.to_bytes())))?;
    let change = Change { propagation: Some(Propagation::Private), ..Change::default() };
    mount::change(folder, change)
}
