//! Becoming the pod: join and make its namespaces, name it, mount its shared memory, write its
//! sysctls, clone pod-init. Nothing of the node's is ever changed: a sysctl is written only into a
//! namespace that has been seen to differ from the zygote's.

use super::Monitor;
use super::birth::{release, talk};
use super::connections::Asker;
use super::group::{self, Group, next};
use crate::error::{failure, refused, telling};
use crate::pod_init;
use shim_model::wire::{CgroupFds, Failure, FromMonitor, Journal, PodPlan, Process};
use shim_sys::error::{Errno, SysError};
use shim_sys::mount::{self, Flags};
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, CloneInto, Cloned};
use shim_sys::procfs::Proc;
use shim_sys::{credentials, fd};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// The pod that this monitor has become.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// First process of the shared PID namespace, while it lives.
    pub(crate) init: Option<PodInit>,
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
        let reply = match self.become_pod(plan, fds) {
            Ok(pod) => {
                let pod_init = pod.init.as_ref().map(|init| init.process);
                self.pod = Some(pod);
                FromMonitor::Ready { monitor: self.process, pod_init }
            }
            Err(failure) => FromMonitor::Failed(failure),
        };
        self.reply(asker, &reply);
        process::trim_heap();
    }

    fn become_pod(&mut self, plan: &PodPlan, fds: Vec<OwnedFd>) -> Result<Pod, Failure> {
        if self.pod.is_some() {
            return Err(refused("set the pod up a second time", Errno::EALREADY));
        }
        let mut fds = fds.into_iter();
        let network = plan.join_network.then(|| next(&mut fds)).transpose()?;
        let own = namespaces(plan, network).map_err(telling("make the pod's namespaces"))?;
        if let Some(name) = &plan.hostname {
            own.check(Namespace::Uts)?;
            namespace::set_hostname(name.to_bytes()).map_err(telling("name the pod"))?;
        }
        if let Some(bytes) = plan.shm_bytes {
            shared_memory(bytes).map_err(telling("mount the pod's shared memory"))?;
        }
        write_sysctls(&plan.sysctls, &own)?;
        let init = match plan.pod_init {
            Some(announced) => Some(self.clone_init(announced, fds)?),
            None => None,
        };
        Ok(Pod { init })
    }

    fn clone_init(
        &mut self,
        announced: CgroupFds,
        mut fds: std::vec::IntoIter<OwnedFd>,
    ) -> Result<PodInit, Failure> {
        let doing = "clone pod-init";
        let group = Group::take(announced, &mut fds)?;
        let (ours, theirs) = talk().map_err(telling(doing))?;
        let cgroup = group.into.as_ref().map(AsFd::as_fd);
        let into = CloneInto { mounts: true, pids: true, cgroup };
        match process::clone3(into).map_err(telling(doing))? {
            Cloned::Child => {
                drop(ours);
                let mut released = [0_u8; 1];
                let joined = credentials::end_with_parent().and_then(|()| group::join(&group.join));
                if joined.is_err() || !fd::read(&theirs, &mut released).is_ok_and(|n| n == 1) {
                    process::exit_now(1);
                }
                pod_init::run(&theirs)
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

/// Which namespaces are the pod's own.
struct Own(BTreeMap<&'static str, bool>);

impl Own {
    fn check(&self, kind: Namespace) -> Result<(), Failure> {
        if self.0.get(kind.name()).copied().unwrap_or(false) {
            return Ok(());
        }
        let text = format!("change the {} namespace: it is the node's", kind.name());
        Err(refused(text, Errno::EPERM))
    }
}

fn namespaces(plan: &PodPlan, network: Option<OwnedFd>) -> Result<Own, SysError> {
    let kinds = [Namespace::Network, Namespace::Uts, Namespace::Ipc];
    let before = kinds.map(namespace::own_id);
    namespace::unshare(&[Namespace::Mount])?;
    if let Some(network) = network {
        namespace::join(network, &[Namespace::Network])?;
    }
    let mut new = Vec::new();
    new.extend(plan.hostname.is_some().then_some(Namespace::Uts));
    new.extend(plan.shm_bytes.is_some().then_some(Namespace::Ipc));
    namespace::unshare(&new)?;
    let mut own = BTreeMap::new();
    for (kind, before) in kinds.into_iter().zip(before) {
        own.insert(kind.name(), namespace::own_id(kind)? != before?);
    }
    Ok(Own(own))
}

fn shared_memory(bytes: u64) -> Result<(), SysError> {
    let size = CString::new(bytes.to_string()).unwrap_or_default();
    let guarded = Flags::NOSUID.and(Flags::NODEV).and(Flags::NOEXEC);
    let memory = mount::tmpfs(&[(c"mode", c"1777"), (c"size", &size)], guarded)?;
    mount::attach_path(memory, c"/shm")
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
        let path = [b"sys/", name.to_bytes()].concat();
        let path = CString::new(path).unwrap_or_default();
        proc.write(&path)
            .and_then(|file| fd::write_all(file, value.to_bytes()))
            .map_err(|error| failure(format!("set {}", name.to_string_lossy()), &error))?;
    }
    Ok(())
}

/// The namespace that a file below /proc/sys belongs to; `None` = it is the whole node's.
fn namespace_of(name: &CStr) -> Option<Namespace> {
    let name = name.to_bytes();
    let ipc: [&[u8]; 4] = [b"kernel/shm", b"kernel/msg", b"kernel/sem", b"fs/mqueue/"];
    if name.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return None;
    }
    if name.starts_with(b"net/") {
        return Some(Namespace::Network);
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
