//! A pod's own user namespace. The monitor makes it and stays outside, with all its rights: it can kill,
//! reap and join whatever is inside, and nobody inside reaches it. A helper is cloned into the namespace
//! with the others that belong to it, writes what only somebody inside may write, and ends. Containers are
//! cloned by a go-between that joins first, so that their namespaces belong to it too.

use super::Monitor;
use super::connections::Asker;
use super::pod::{Own, namespace_of, set};
use crate::error::{failure, refused, telling};
use shim_model::sandbox::config::IdMapping;
use shim_model::wire::{Failure, FromMonitor, PodPlan, UserPlan};
use shim_sys::error::{Errno, SysError};
use shim_sys::mount::{self, Flags, NewFs};
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, CloneInto, Cloned};
use shim_sys::procfs::Proc;
use shim_sys::userns::{self, IdMap};
use shim_sys::{credentials, fd};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The namespace, as its monitor holds it.
#[derive(Debug)]
pub(crate) struct User {
    /// To be joined.
    pub(crate) namespace: OwnedFd,
    /// User and group 0 of it, as the node counts them.
    pub(crate) root: (u32, u32),
}

/// Sysctl files and values.
type Sysctls = [(CString, CString)];

/// What the helper says when it could not write one: its place in the list and the errno.
const WORD: usize = 8;

impl Monitor {
    pub(crate) fn lend_user_namespace(&mut self, asker: Asker) {
        let known = self.pod.as_ref().and_then(|pod| pod.user.as_ref());
        let Some(known) = known else { return self.reply(asker, &FromMonitor::Unknown) };
        match fd::duplicate(&known.namespace) {
            Ok(copy) => self.reply_with(asker, &FromMonitor::Done, Some(copy)),
            Err(error) => {
                let failed = failure("lend the user namespace", &error);
                self.reply(asker, &FromMonitor::Failed(failed));
            }
        }
    }

    /// As [`Monitor::clone_among`], for a container: in the pod's user namespace, if it has one.
    pub(crate) fn clone_in_pod(
        &self,
        pids_of: Option<BorrowedFd<'_>>,
        into: CloneInto<'_>,
    ) -> Result<Cloned, SysError> {
        match self.pod.as_ref().and_then(|pod| pod.user.as_ref()) {
            Some(user) => clone_inside(user, pids_of, into),
            None => self.clone_among(pids_of, into),
        }
    }

    pub(crate) fn has_user_namespace(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.user.is_some())
    }

    /// Gives the standard streams to the pod's root: it cannot open again what belongs to nobody in it.
    pub(crate) fn give_streams(&self, streams: &[OwnedFd]) -> Result<(), Failure> {
        let Some(user) = self.pod.as_ref().and_then(|pod| pod.user.as_ref()) else { return Ok(()) };
        let mut pipes = streams.iter().filter(|fd| matches!(fd::kind(fd), Ok(fd::FileKind::Pipe)));
        let (uid, gid) = user.root;
        pipes
            .try_for_each(|pipe| userns::give(pipe, uid, gid))
            .map_err(telling("give the standard streams to the pod's root"))
    }
}

/// Makes the namespace and those that belong to it; joins all but itself. What is the node's stays.
pub(crate) fn make(plan: &PodPlan, user: UserPlan) -> Result<(User, Option<OwnedFd>), Failure> {
    let doing = "make the pod's user namespace";
    let mut kinds = vec![Namespace::User];
    kinds.extend(user.network.then_some(Namespace::Network));
    kinds.extend(plan.hostname.is_some().then_some(Namespace::Uts));
    kinds.extend(plan.shm_bytes.is_some().then_some(Namespace::Ipc));
    let inside: Vec<(CString, CString)> = plan
        .sysctls
        .iter()
        .filter(|(name, _)| namespace_of(name) != Some(Namespace::Uts))
        .cloned()
        .collect();
    let proc = Proc::detached().map_err(telling("mount a private proc"))?;
    let (go, held) = fd::pipe().map_err(telling(doing))?;
    let (word, said) = fd::pipe().map_err(telling(doing))?;
    let into = CloneInto { new: &kinds, ..CloneInto::default() };
    match process::clone3(into).map_err(telling(doing))? {
        Cloned::Child => {
            drop((held, word));
            help(&go, &said, &proc, &inside)
        }
        Cloned::Parent { pid, pidfd } => {
            drop((go, said));
            let made = settle(pid, user, &kinds);
            // Only now may it go on; if this failed, it finds nobody who lets it.
            let written = made.and_then(|made| {
                fd::write_all(&held, b"1").map_err(telling(doing))?;
                hear(&word, &inside).map(|()| made)
            });
            drop(held);
            process::reap_blocking(&pidfd).map_err(telling(doing))?;
            written
        }
    }
}

/// Writes the maps of a helper's namespace, takes hold of what it has, joins what is not the user's.
fn settle(
    pid: i32,
    user: UserPlan,
    kinds: &[Namespace],
) -> Result<(User, Option<OwnedFd>), Failure> {
    let maps = user.maps;
    userns::write_maps(pid, map(maps.uids), map(maps.gids))
        .map_err(telling("map the ids of the pod"))?;
    let hold = |kind| namespace::of_process(pid, kind).map_err(telling("hold a namespace"));
    let mut network = None;
    for kind in kinds.iter().copied().filter(|kind| *kind != Namespace::User) {
        let found = hold(kind)?;
        namespace::join(&found, &[kind]).map_err(telling("join the pod's namespaces"))?;
        network = if kind == Namespace::Network { Some(found) } else { network };
    }
    Ok((User { namespace: hold(Namespace::User)?, root: maps.root() }, network))
}

const fn map(line: IdMapping) -> IdMap {
    IdMap { inside: line.container_id, outside: line.host_id, count: line.length }
}

/// The helper: waits until its ids are mapped, writes the sysctls of its namespaces as their root, for the
/// kernel lets nobody else write some of them, and ends. It still holds what the monitor does, so it stays
/// closed to everybody.
fn help(go: &OwnedFd, said: &OwnedFd, proc: &Proc, sysctls: &Sysctls) -> ! {
    drop(fd::close_all_but(&mut [go.as_fd(), said.as_fd(), proc.as_fd()]));
    if !matches!(fd::read(go, &mut [0]), Ok(1)) {
        process::exit_now(1);
    }
    let word = |place: usize, error: &SysError| {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let word = [place.to_ne_bytes(), (error.errno() as i32).to_ne_bytes()].concat();
        drop(fd::write(said, &word));
        process::exit_now(1)
    };
    if let Err(error) = userns::become_root() {
        word(sysctls.len(), &error);
    }
    for (place, (name, value)) in sysctls.iter().enumerate() {
        if let Err(error) = set(proc, name, value) {
            word(place, &error);
        }
    }
    process::exit_now(0)
}

/// Waits for the end of the helper's work; what it could not do.
fn hear(word: &OwnedFd, sysctls: &Sysctls) -> Result<(), Failure> {
    let mut said = [0_u8; WORD];
    if fd::read(word, &mut said).map_err(telling("hear the pod's helper"))? < WORD {
        return Ok(());
    }
    let [a, b, c, d, errno @ ..] = said;
    let place = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let step = match sysctls.get(place) {
        Some((name, _)) => format!("set {}", name.to_string_lossy()),
        None => "become the root of the pod's user namespace".to_owned(),
    };
    Err(refused(step, Errno::from_raw(i32::from_ne_bytes(errno))))
}

/// The sysctls that the helper does not write: those that only the node's root may.
pub(crate) fn outside(sysctls: &Sysctls) -> Vec<(CString, CString)> {
    let of_uts = |(name, _): &&(CString, CString)| namespace_of(name) == Some(Namespace::Uts);
    sysctls.iter().filter(of_uts).cloned().collect()
}

/// What a container must see to be let mount its own: the kernel allows a sysfs inside a user namespace only
/// beside one that is not hidden (`mount_too_revealing`). Nobody reaches this one but through a new mount
/// namespace, which leaves it behind. proc is there already.
pub(crate) fn show_sysfs(own: &Own) -> Result<(), Failure> {
    if own.check(Namespace::Network).is_err() {
        return Ok(());
    }
    let guarded = Flags::NOSUID.and(Flags::NODEV).and(Flags::NOEXEC);
    NewFs::open(c"sysfs")
        .and_then(|fs| fs.mount(guarded))
        .and_then(|sys| mount::attach_path(sys, c"/sys"))
        .map_err(telling("mount a sysfs for the pod"))
}

/// Clones in a pod's user namespace, if it has one.
pub(crate) fn clone_within(user: Option<&User>, into: CloneInto<'_>) -> Result<Cloned, SysError> {
    user.map_or_else(|| process::clone3(into), |user| clone_inside(user, None, into))
}

/// Clones in a user namespace: a go-between joins it, and the PID namespace of another process if one is
/// given, and clones a sibling. So the new process is the monitor's child, and what it gets anew belongs to
/// the namespace. It is not yet its root (`Birth` sees to that): it enters its cgroup as the node's.
fn clone_inside(
    user: &User,
    pids_of: Option<BorrowedFd<'_>>,
    into: CloneInto<'_>,
) -> Result<Cloned, SysError> {
    let (word, said) = fd::pipe()?;
    match process::clone3(CloneInto::default())? {
        Cloned::Child => {
            let into = CloneInto { sibling: true, ..into };
            let number = match join(user, pids_of).and_then(|()| process::clone3(into)) {
                Ok(Cloned::Child) => return Ok(Cloned::Child),
                Ok(Cloned::Parent { pid, .. }) => pid,
                Err(error) => -(error.errno() as i32),
            };
            drop(fd::write(&said, &number.to_ne_bytes()));
            process::exit_now(0)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(said);
            let mut number = [0_u8; 4];
            // Its child has the pipe open as well, but closes it before it waits for us.
            let heard = fd::read(&word, &mut number);
            process::reap_blocking(pidfd)?;
            let pid = if heard? == number.len() { i32::from_ne_bytes(number) } else { 0 };
            match pid {
                1.. => Ok(Cloned::Parent { pid, pidfd: process::pidfd_open(pid)? }),
                0 => Err(SysError::new("clone3", "the go-between was killed", Errno::ESRCH)),
                errno => Err(SysError::new("clone3", "", Errno::from_raw(-errno))),
            }
        }
    }
}

fn join(user: &User, pids_of: Option<BorrowedFd<'_>>) -> Result<(), SysError> {
    if let Some(other) = pids_of {
        namespace::join(other, &[Namespace::Pid])?;
    }
    namespace::join(user.namespace.as_fd(), &[Namespace::User])?;
    credentials::not_dumpable()
}
