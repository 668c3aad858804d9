//! Cgroups of the first version: joined by `tasks`, killed one by one, execs in the freezer's tree; and
//! out-of-memory kills, which only a memory controller counts. Skipped where a hierarchy is missing.

use crate::Test;
use crate::client::{Pod, command, id, shell, text};
use shim_model::plan::{ExecPlan, PidNamespace, Step};
use shim_model::wire::{CgroupFds, Exec, ExecEnd, FromMonitor, ToMonitor};
use shim_sys::{fd, process};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(crate) const TESTS: &[Test] = &[
    ("root_a_first_process_killed_for_memory_is_told_as_such", root_out_of_memory),
    ("root_groups_of_the_first_version_are_joined_and_killed", root_first_version),
];

/// A group of one v1 hierarchy.
struct Old(PathBuf);

impl Old {
    fn new(hierarchy: &str) -> Option<Self> {
        let base = Path::new("/sys/fs/cgroup").join(hierarchy);
        if !base.join("tasks").exists() {
            eprintln!("skipped: no v1 hierarchy {hierarchy} here");
            return None;
        }
        let path = base.join(format!("wherry-test-{}", process::own_pid()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    fn open(&self, name: &str) -> OwnedFd {
        fs::OpenOptions::new().read(true).write(true).open(self.0.join(name)).unwrap().into()
    }

    fn members(&self) -> usize {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap().lines().count()
    }

    fn groups(&self) -> usize {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        for _ in 0..100_000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
        eprintln!("cgroup {} stays", self.0.display());
    }
}

fn root_out_of_memory() {
    let Some(memory) = Old::new("memory") else { return };
    fs::write(memory.0.join("memory.limit_in_bytes"), "8388608").unwrap();
    let mut pod = Pod::new("oom");
    let cgroup = CgroupFds { join: 1, into: false, kill: false, oom: true };
    let zero = Step::Device {
        path: text("/dev/zero"),
        block: false,
        major: 1,
        minor: 5,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let fds = || vec![memory.open("tasks"), memory.open("memory.oom_control")];
    // tail keeps what may be the last line, and this one never ends.
    let mut plan = shell("exec busybox tail /dev/zero");
    plan.mounts.insert(2, zero.clone());
    assert!(matches!(pod.start_in(1, plan, (cgroup, fds())), FromMonitor::Launched { .. }));
    let exit = pod.exit(1);
    assert_eq!((exit.code, exit.oom), (137, true));
    // A child that is killed for memory is not the container's end.
    let mut plan = shell("busybox tail /dev/zero; echo went on; exit 3");
    plan.mounts.insert(2, zero);
    assert!(matches!(pod.start_in(2, plan, (cgroup, fds())), FromMonitor::Launched { .. }));
    let exit = pod.exit(2);
    assert_eq!((exit.code, exit.oom), (3, false));
}

fn root_first_version() {
    let (Some(freezer), Some(pids)) = (Old::new("freezer"), Old::new("pids")) else { return };
    let mut pod = Pod::new("old");
    let cgroup = CgroupFds { join: 2, into: false, kill: true, oom: false };
    let folder = OwnedFd::from(fs::File::open(&freezer.0).unwrap());
    let mut plan = shell("sleep 1000 & sleep 1000");
    plan.pid = PidNamespace::Node;
    let fds = vec![freezer.open("tasks"), pids.open("tasks"), folder];
    assert!(matches!(pod.start_in(1, plan, (cgroup, fds)), FromMonitor::Launched { .. }));
    // The shell forks, and the two are read one after the other.
    while pids.members() != freezer.members() {
        std::thread::yield_now();
    }
    let (output, theirs) = fd::pipe().unwrap();
    let (_error, errors) = fd::pipe().unwrap();
    let argv = ["/bin/sh", "-c", "cat /proc/self/cgroup; sleep 1001 & sleep 1002"];
    let plan = ExecPlan { process: vec![Step::Session], program: command(&argv) };
    let exec = Exec { container: id(1), plan, timeout: 200_000_000, stdin: false };
    let number = pod.send(&ToMonitor::Exec(Box::new(exec)), &[theirs, errors]);
    let end = FromMonitor::ExecEnded(ExecEnd { code: 137, timed_out: true });
    assert_eq!(pod.reply(number), end);
    let groups = String::from_utf8(fd::read_to_end(output, 1 << 16).unwrap()).unwrap();
    // Inside, the cgroup namespace may shorten the path: its end is what counts.
    let line = groups.lines().find(|line| line.contains(":freezer:")).unwrap();
    assert!(line.contains("/exec-"), "{line}");
    while freezer.groups() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(pod.state()[0].exit, None);
    assert_eq!(pod.ask(&ToMonitor::Kill { container: id(1) }, &[]), FromMonitor::Done);
    assert_eq!(pod.exit(1).code, 137);
    while freezer.members() > 0 {
        std::thread::yield_now();
    }
}
