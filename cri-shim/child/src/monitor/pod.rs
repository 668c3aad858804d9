//! Becoming the pod: join and make its namespaces, name it, mount its shared memory, write its
//! sysctls, clone pod-init. Nothing of the node's is ever changed: a sysctl is written only into a
//! namespace that has been seen to differ from the zygote's.

use super::Monitor;
use super::birth::{release, talk};
use super::connections::Asker;
use super::group::{self, Group, next};
use super::user::{self, User};
use crate::error::{failure, refused, telling};
use crate::pod_init;
use shim_model::wire::{CgroupFds, Failure, FromMonitor, Journal, PodPlan, Process};
use shim_sys::error::{Errno, SysError};
use shim_sys::mount::{self, Flags};
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, CloneInto, Cloned};
use shim_sys::procfs::Proc;
use shim_sys::{credentials, fd, userns};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// The pod that this monitor has become.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// First process of the shared PID namespace, while it lives.
    pub(crate) init: Option<PodInit>,
    /// Its own user namespace.
    pub(crate) user: Option<User>,
}

/// A running pod-init.
#[derive(Debug)]
pub(crate) struct PodInit {
    pub(crate) process: Process,
    pub(crate) pidfd: OwnedFd,
}

impl Pod {
    pub(crate) fn is_init(&self, pid: i32) -> bool {
        self.init.as_ref().is_some_and(|init| init.process.pid == pid)
    }
}

impl Monitor {
    /// The first request. A failure leaves a monitor that is good for nothing but to be ended.
    pub(crate) fn set_up(&mut self, asker: Asker, plan: &PodPlan, fds: Vec<OwnedFd>) {
        let (reply, network) = match self.become_pod(plan, fds) {
            Ok((pod, network)) => {
                let pod_init = pod.init.as_ref().map(|init| init.process);
                self.pod = Some(pod);
                (FromMonitor::Ready { monitor: self.process, pod_init }, network)
            }
            Err(failure) => (FromMonitor::Failed(failure), None),
        };
        self.reply_with(asker, &reply, network);
        process::trim_heap();
    }

    /// The pod, and its network namespace if it was made here.
    fn become_pod(
        &mut self,
        plan: &PodPlan,
        fds: Vec<OwnedFd>,
    ) -> Result<(Pod, Option<OwnedFd>), Failure> {
        if self.pod.is_some() {
            return Err(refused("set the pod up a second time", Errno::EALREADY));
        }
        let mut fds = fds.into_iter();
        let network = plan.join_network.then(|| next(&mut fds)).transpose()?;
        let before = ids().map_err(telling("look at the node's namespaces"))?;
        join(network).map_err(telling("join the pod's network namespace"))?;
        let (user, made) = match plan.user {
            Some(inside) => user::make(plan, inside).map(|(user, made)| (Some(user), made))?,
            None => (None, None),
        };
        if user.is_none() {
            make(plan).map_err(telling("make the pod's namespaces"))?;
        }
        let own = Own::since(before).map_err(telling("look at the pod's namespaces"))?;
        if let Some(name) = &plan.hostname {
            own.check(Namespace::Uts)?;
            namespace::set_hostname(name.to_bytes()).map_err(telling("name the pod"))?;
        }
        if let Some(bytes) = plan.shm_bytes {
            let owner = user.as_ref().map_or((0, 0), |user| user.root);
            shared_memory(bytes, owner, plan.files.as_deref())
                .map_err(telling("mount the pod's shared memory"))?;
        }
        if user.is_some() {
            write_sysctls(&user::outside(&plan.sysctls), &own)?;
            user::show_sysfs(&own)?;
        } else {
            write_sysctls(&plan.sysctls, &own)?;
        }
        let init = match plan.pod_init {
            Some(announced) => Some(self.clone_init((announced, plan), fds, user.as_ref())?),
            None => None,
        };
        Ok((Pod { init, user }, made))
    }

    fn clone_init(
        &mut self,
        (announced, plan): (CgroupFds, &PodPlan),
        mut fds: std::vec::IntoIter<OwnedFd>,
        user: Option<&User>,
    ) -> Result<PodInit, Failure> {
        let doing = "clone pod-init";
        let group = Group::take(announced, &mut fds)?;
        let (ours, theirs) = talk().map_err(telling(doing))?;
        let cgroup = group.into.as_ref().map(AsFd::as_fd);
        let new = &[Namespace::Mount, Namespace::Pid];
        let into = CloneInto { new, cgroup, sibling: false };
        match user::clone_within(user, into).map_err(telling(doing))? {
            Cloned::Child => {
                drop(ours);
                let mut released = [0_u8; 1];
                // A change of ids would forget whose end is its own.
                let changed = user.map_or(Ok(()), |_inside| userns::become_root());
                let joined = changed
                    .and_then(|()| credentials::end_with_parent())
                    .and_then(|()| group::join(&group.join));
                if joined.is_err() || !fd::read(&theirs, &mut released).is_ok_and(|n| n == 1) {
                    process::exit_now(1);
                }
                pod_init::run(&theirs, plan)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let start = process::start_time(pid).map_err(telling("read its start"))?;
                let process = Process { pid, start };
                self.journal.append(&Journal::PodInit { process });
                release(&ours).map_err(telling(doing))?;
                sealed(&ours).map_err(|error| failure("seal pod-init off", &error))?;
                Ok(PodInit { process, pidfd })
            }
        }
    }
}

/// Waits until pod-init has left everything behind; nothing else has begun in this pod yet.
fn sealed(told: &OwnedFd) -> Result<(), SysError> {
    fd::wait_readable(told)?;
    let mut errno = [0_u8; 4];
    if fd::read(told, &mut errno)? < errno.len() {
        return Ok(());
    }
    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
    Err(SysError::new("pod-init", "", errno))
}

/// Kinds of namespaces whose settings a pod may change.
const KINDS: [Namespace; 3] = [Namespace::Network, Namespace::Uts, Namespace::Ipc];

/// Which namespaces are the pod's own.
pub(crate) struct Own(BTreeMap<&'static str, bool>);

impl Own {
    /// Those that are others than before.
    fn since(before: [u64; 3]) -> Result<Self, SysError> {
        let now = ids()?;
        let changed = KINDS.into_iter().zip(before.into_iter().zip(now));
        Ok(Self(changed.map(|(kind, (before, now))| (kind.name(), before != now)).collect()))
    }

    pub(crate) fn check(&self, kind: Namespace) -> Result<(), Failure> {
        if self.0.get(kind.name()).copied().unwrap_or(false) {
            return Ok(());
        }
        let text = format!("change the {} namespace: it is the node's", kind.name());
        Err(refused(text, Errno::EPERM))
    }
}

fn ids() -> Result<[u64; 3], SysError> {
    let [network, uts, ipc] = KINDS.map(namespace::own_id);
    Ok([network?, uts?, ipc?])
}

fn join(network: Option<OwnedFd>) -> Result<(), SysError> {
    namespace::unshare(&[Namespace::Mount])?;
    network.map_or(Ok(()), |network| namespace::join(network, &[Namespace::Network]))
}

/// The namespaces of a pod in the node's user namespace.
fn make(plan: &PodPlan) -> Result<(), SysError> {
    let mut new = Vec::new();
    new.extend(plan.hostname.is_some().then_some(Namespace::Uts));
    new.extend(plan.shm_bytes.is_some().then_some(Namespace::Ipc));
    namespace::unshare(&new)
}

fn shared_memory(bytes: u64, (uid, gid): (u32, u32), label: Option<&CStr>) -> Result<(), SysError> {
    let [size, uid, gid] = [bytes, uid.into(), gid.into()]
        .map(|number: u64| CString::new(number.to_string()).unwrap_or_default());
    let guarded = Flags::NOSUID.and(Flags::NODEV).and(Flags::NOEXEC);
    let mut options: Vec<(&CStr, &CStr)> =
        vec![(c"mode", c"1777"), (c"size", &size), (c"uid", &uid), (c"gid", &gid)];
    options.extend(label.map(|label| (c"context", label)));
    mount::attach_path(mount::tmpfs(&options, guarded)?, c"/shm")
}

fn write_sysctls(sysctls: &[(CString, CString)], own: &Own) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = Proc::detached().map_err(telling("mount a private proc"))?;
    for (name, value) in sysctls {
        let kind = namespace_of(name).ok_or_else(|| {
            let text =
                format!("set {}: it belongs to no namespace of a pod", name.to_string_lossy());
            refused(text, Errno::EPERM)
        })?;
        own.check(kind)?;
        set(&proc, name, value)
            .map_err(|error| failure(format!("set {}", name.to_string_lossy()), &error))?;
    }
    Ok(())
}

/// Writes a file below /proc/sys, as the namespaces of this process show it.
pub(crate) fn set(proc: &Proc, name: &CStr, value: &CStr) -> Result<(), SysError> {
    let path = [b"sys/", name.to_bytes()].concat();
    let path = CString::new(path).unwrap_or_default();
    proc.write(&path).and_then(|file| fd::write_all(file, value.to_bytes()))
}

/// The namespace that a file below /proc/sys belongs to; `None` = it is the whole node's.
pub(crate) fn namespace_of(name: &CStr) -> Option<Namespace> {
    let name = name.to_bytes();
    let ipc: [&[u8]; 4] = [b"kernel/shm", b"kernel/msg", b"kernel/sem", b"fs/mqueue/"];
    if name.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return None;
    }
    if name.starts_with(b"net/") {
        return Some(Namespace::Network);
    }
    if name.starts_with(b"user/") {
        return Some(Namespace::User);
    }
    if ipc.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(Namespace::Ipc);
    }
    matches!(name, b"kernel/hostname" | b"kernel/domainname").then_some(Namespace::Uts)
}

#[cfg(test)]
mod tests {
    use super::namespace_of;
    use shim_sys::namespace::Namespace;

    #[test]
    fn only_files_of_a_pods_own_namespaces_are_written() {
        assert_eq!(namespace_of(c"net/ipv4/ip_forward"), Some(Namespace::Network));
        assert_eq!(namespace_of(c"kernel/shm_rmid_forced"), Some(Namespace::Ipc));
        assert_eq!(namespace_of(c"kernel/domainname"), Some(Namespace::Uts));
        for name in
            [c"kernel/core_pattern", c"vm/swappiness", c"net/../kernel/sysrq", c"", c"net//x"]
        {
            assert_eq!(namespace_of(name), None, "{name:?}");
        }
    }
}
