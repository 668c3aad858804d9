//! The mount steps of a walk: attach the root, binds, new file systems, nodes, masks, pivot. Every
//! source is a detached tree by descriptor, every target is looked up inside the attached root
//! (`shim_sys::rooted`), so no path of an image or pod leads out. Runs between clone and exec and
//! allocates nothing unless a call fails. The other steps are `walk.rs`.

use crate::hooks;
use crate::walk::Walk;
use shim_model::plan::{Attributes, Slot, Spread, Step, TargetKind};
use shim_sys::error::{Errno, SysError};
use shim_sys::fd::{self, FileKind};
use shim_sys::label;
use shim_sys::mount::{self, Change, Flags, NewFs, Propagation};
use shim_sys::namespace::{self, Namespace};
use shim_sys::rooted::{self, Device, Make};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

type Done = Result<(), SysError>;

/// A mistake in the plan itself: the planner never makes one.
pub(crate) fn bad_plan(what: &'static str) -> SysError {
    SysError::new("walk", what, Errno::EINVAL)
}

impl Walk<'_> {
    /// Carries out one step of the mount chapter; false = it belongs to the process chapter.
    pub(crate) fn mount_step(&mut self, step: &Step) -> Result<bool, SysError> {
        match step {
            Step::CgroupNamespace => namespace::unshare(&[Namespace::Cgroup])?,
            Step::AttachRoot { slot, spread } => self.attach_root(*slot, *spread, c"/r")?,
            Step::AttachRootAt { slot, spread, path } => self.attach_root(*slot, *spread, path)?,
            Step::NodeMounts { slot } => self.node_mounts(*slot)?,
            Step::Hook { path, argv, env, state, seconds } => {
                hooks::run(path, (argv, env), state, Duration::from_secs((*seconds).into()))?;
            }
            Step::Bind { slot, target, kind, attributes, spread } => {
                let tree = self.slot(*slot)?;
                prepare(tree, *attributes, *spread)?;
                self.attach(tree, target, *kind)?;
            }
            Step::NewFs { fstype, source, options, attributes, target } => {
                let tree = new_fs(fstype, source, options, *attributes)?;
                self.attach(tree.as_fd(), target, TargetKind::Folder)?;
            }
            Step::PodShm { target } => self.pod_shm(target)?,
            Step::Folder { path, mode } => {
                rooted::ensure(self.root()?, path, Make::Folder(*mode)).map(drop)?;
            }
            Step::Link { path, to } => rooted::link(self.root()?, path, to)?,
            Step::Device { path, block, major, minor, mode, uid, gid } => {
                let number = (*major, *minor);
                let owner = (*uid, *gid);
                let device = Device { block: *block, number, mode: *mode, owner };
                rooted::device(self.root()?, path, device)?;
            }
            Step::Mask { path } => self.mask(path)?,
            Step::ReadonlyPath { path } => self.readonly_path(path)?,
            Step::ReadonlyRoot => {
                let change = Change { set: Flags::READONLY, ..Change::default() };
                mount::change(self.root()?, change)?;
            }
            Step::Pivot => {
                mount::pivot(self.root()?)?;
                self.pivoted = true;
            }
            Step::Console => self.console()?,
            Step::OomScoreAdj(_)
            | Step::Terminal { .. }
            | Step::Label { .. }
            | Step::Rlimit(_)
            | Step::Session
            | Step::Keyring
            | Step::Umask(_)
            | Step::NoNewPrivs
            | Step::Bounding(_)
            | Step::User { .. }
            | Step::Capabilities(_)
            | Step::Chdir(_)
            | Step::Seccomp { .. }
            | Step::Verify { .. } => return Ok(false),
        }
        Ok(true)
    }

    fn slot(&self, slot: Slot) -> Result<BorrowedFd<'_>, SysError> {
        let found = self.slots.get(usize::from(slot));
        found.map(AsFd::as_fd).ok_or_else(|| bad_plan("no such slot"))
    }

    pub(crate) fn root(&self) -> Result<BorrowedFd<'_>, SysError> {
        let slot = self.root.ok_or_else(|| bad_plan("the root is not attached"))?;
        self.slot(slot)
    }

    fn pod_shm(&mut self, target: &CStr) -> Done {
        let tree = match self.shm.take() {
            Some(taken) => taken,
            None => mount::clone_path(c"/shm", false)?,
        };
        self.attach(tree.as_fd(), target, TargetKind::Folder)
    }

    fn console(&self) -> Done {
        let terminal = self.terminal.as_ref();
        let terminal = terminal.ok_or_else(|| bad_plan("no terminal for the console"))?;
        let tree = mount::clone_descriptor(terminal, false)?;
        self.attach(tree.as_fd(), c"/dev/console", TargetKind::File)
    }

    /// The mount namespace is a copy of the zygote's, all private: nothing that is attached to it
    /// travels anywhere, whatever the root's own propagation is.
    fn attach_root(&mut self, slot: Slot, spread: Spread, path: &CStr) -> Done {
        let tree = self.slot(slot)?;
        let propagation = Some(match spread {
            Spread::Private => Propagation::Private,
            Spread::Slave => Propagation::Slave,
            Spread::Shared => Propagation::Shared,
        });
        mount::change(tree, Change { propagation, recursive: true, ..Change::default() })?;
        mount::attach_path(tree, path)?;
        self.root = Some(slot);
        Ok(())
    }

    /// What is mounted in the copy from now on stays in it, and so does what is made in the node's. The null
    /// device that hides files is the node's own then.
    fn node_mounts(&mut self, slot: Slot) -> Done {
        self.shm = mount::clone_path(c"/shm", false).ok();
        namespace::join(self.slot(slot)?, &[Namespace::Mount])?;
        namespace::unshare(&[Namespace::Mount])?;
        mount::change_path(c"/", Propagation::Private)
    }

    fn attach(&self, tree: BorrowedFd<'_>, target: &CStr, kind: TargetKind) -> Done {
        let make = match kind {
            TargetKind::Folder => Make::Folder(0o755),
            TargetKind::Like if fd::kind(tree)? == FileKind::Folder => Make::Folder(0o755),
            TargetKind::File | TargetKind::Like => Make::File,
        };
        let root = self.root()?;
        let target = rooted::ensure(root, target, make)?;
        if fd::inode(&target)? == fd::inode(root)? {
            // A mount over the root itself would hide everything and be lost at the pivot.
            return Err(SysError::new("move_mount", "/", Errno::EBUSY));
        }
        mount::attach(tree, target)
    }

    fn mask(&self, path: &CStr) -> Done {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let cover = if fd::kind(&target)? == FileKind::Folder {
            mount::tmpfs(&[(c"size", c"4k")], Flags::READONLY)?
        } else {
            // Of the tiny root; after the pivot there is none, and masks come before it.
            mount::clone_path(c"/dev/null", false)?
        };
        mount::attach(cover, target)
    }

    fn readonly_path(&self, path: &CStr) -> Done {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let copy = mount::clone_descriptor(&target, true)?;
        mount::change(&copy, Change { set: Flags::READONLY, ..Change::default() })?;
        mount::attach(copy, target)
    }

    fn existing(&self, path: &CStr) -> Result<Option<OwnedFd>, SysError> {
        match rooted::open(self.root()?, path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Attributes on the top mount, propagation on the whole tree, while it is still detached. A shared
/// tree is left as it is: a copy of a shared mount is in the source's peer group, and must stay there.
fn prepare(tree: BorrowedFd<'_>, attributes: Attributes, spread: Spread) -> Done {
    let set = flags(attributes);
    if set != Flags::NONE {
        mount::change(tree, Change { set, ..Change::default() })?;
    }
    let propagation = match spread {
        Spread::Private => Some(Propagation::Private),
        Spread::Slave => Some(Propagation::Slave),
        Spread::Shared => None,
    };
    let set = Flags::READONLY.when(attributes.recursive_readonly);
    if propagation.is_none() && set == Flags::NONE {
        return Ok(());
    }
    mount::change(tree, Change { set, propagation, recursive: true, id_map: None })
}

const fn flags(attributes: Attributes) -> Flags {
    Flags::READONLY
        .when(attributes.readonly)
        .and(Flags::NOSUID.when(attributes.nosuid))
        .and(Flags::NODEV.when(attributes.nodev))
        .and(Flags::NOEXEC.when(attributes.noexec))
}

fn new_fs(
    fstype: &CStr,
    source: &CStr,
    options: &[(CString, Option<CString>)],
    attributes: Attributes,
) -> Result<OwnedFd, SysError> {
    let fs = NewFs::open(fstype)?;
    fs.text(c"source", source)?;
    let mut root_label = None;
    for (key, value) in options {
        match value {
            Some(value) if key.to_bytes() == b"context" && fstype == c"mqueue" => {
                root_label = Some(value);
                &fs
            }
            Some(value) => fs.text(key, value)?,
            None => fs.flag(key)?,
        };
    }
    let mount = fs.mount(flags(attributes))?;
    root_label.map_or(Ok(()), |label| label::set_file(&mount, label)).map(|()| mount)
}
