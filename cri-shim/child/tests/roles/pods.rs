//! Pods under a real monitor: namespaces, host name, shared memory, sysctls, pod-init, leaving. Containers
//! in them are tested beside this file. Needs root.

use crate::Test;
use crate::client::{Pod, id, shell, text};
use shim_model::plan::{PidNamespace, Step};
use shim_model::wire::{CgroupFds, Failure, FromMonitor, Journal, PodPlan, ToMonitor};
use shim_sys::fd;
use shim_sys::namespace::{self, Namespace};
use shim_sys::process;
use std::fs;
use std::os::fd::OwnedFd;

pub(crate) const TESTS: &[Test] = &[
    ("root_a_pod_has_its_own_name_memory_and_sysctls", root_own),
    ("root_a_sysctl_of_the_node_is_refused", root_sysctl_of_the_node),
    ("root_containers_share_a_pid_namespace_that_is_reaped", root_shared_pids),
    ("root_the_end_of_pod_init_ends_its_containers", root_pod_init_ends),
    ("root_a_dead_monitor_takes_pod_init_and_its_namespace_with_it", root_dead_monitor),
    ("root_a_container_joins_the_pids_of_another", root_target),
    ("root_quit_ends_everything", root_quit),
    ("root_descriptors_may_come_later", root_more_descriptors),
];

/// A new network namespace; only its descriptor keeps it.
fn network() -> OwnedFd {
    std::thread::spawn(|| {
        namespace::unshare(&[Namespace::Network]).unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

fn own_plan() -> PodPlan {
    PodPlan {
        join_network: true,
        hostname: Some(text("inside")),
        shm_bytes: Some(1 << 20),
        sysctls: vec![
            (text("net/ipv4/ip_unprivileged_port_start"), text("7")),
            (text("kernel/shm_rmid_forced"), text("1")),
        ],
        pod_init: None,
        user: None,
        profile: None,
        files: None,
    }
}

fn root_own() {
    let outside = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let port = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = fs::read_to_string(port).unwrap();
    let mut pod = Pod::with("own", own_plan(), &[network()]);
    let mut plan = shell(&format!(
        "hostname; cat {port} /proc/sys/kernel/shm_rmid_forced; mount; echo x > /dev/shm/file; ls /dev/shm"
    ));
    plan.mounts.insert(2, Step::PodShm { target: text("/dev/shm") });
    let (code, log) = pod.run(1, plan);
    assert_eq!(code, 0, "{log:?}");
    assert_eq!(log[..3], ["stdout F inside", "stdout F 7", "stdout F 1"].map(String::from));
    let shm = log.iter().find(|line| line.contains("/dev/shm")).unwrap();
    assert!(shm.contains("nosuid,nodev,noexec") && shm.contains("size=1024k"), "{shm}");
    assert_eq!(log.last().unwrap(), "stdout F file");
    // Shared by the pod's containers.
    let mut plan = shell("ls /dev/shm");
    plan.mounts.insert(2, Step::PodShm { target: text("/dev/shm") });
    assert_eq!(pod.run(2, plan).1, ["stdout F file"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), outside);
    assert_eq!(fs::read_to_string(port).unwrap(), before);
}

fn root_sysctl_of_the_node() {
    let refused = |plan: PodPlan| -> Failure {
        let dir = tempfile::tempdir().unwrap();
        let zygote = shim_child::spawn_zygote().unwrap();
        let (monitor, _) = crate::client::fork(&zygote, dir.path());
        let folder = fs::File::open(dir.path()).unwrap();
        let socket = shim_sys::socket::connect(&folder, "monitor.sock").unwrap();
        let reply = crate::client::ask(&socket, &ToMonitor::Setup(plan));
        process::pidfd_send_signal(&monitor, 9).unwrap();
        match reply {
            FromMonitor::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    };
    let plan =
        |name: &str| PodPlan { sysctls: vec![(text(name), text("0"))], ..PodPlan::default() };
    for (name, word) in [
        ("net/ipv4/ip_forward", "net namespace"),
        ("kernel/shm_rmid_forced", "ipc namespace"),
        ("kernel/core_pattern", "no namespace"),
    ] {
        let failure = refused(plan(name));
        assert!(failure.errno == 1 && failure.step.contains(word), "{failure}");
    }
}

fn shared(name: &str) -> Pod {
    let pod_init = Some(CgroupFds::default());
    Pod::with(name, PodPlan { pod_init, ..PodPlan::default() }, &[])
}

fn root_shared_pids() {
    let mut pod = shared("shared");
    let init = pod.init.unwrap();
    let mut plan = shell(
        "cat /proc/1/comm; (sleep 0.01 & sleep 0.01 &); ls /proc/1/root/; sleep 0.1; ls -d /proc/[0-9]*",
    );
    plan.pid = PidNamespace::Pod;
    let (_, log) = pod.run(1, plan);
    assert_eq!(log[0], "stdout F wherry-podinit");
    // Nothing of the node behind /proc/1/root, even for a container with every capability.
    assert!(!log.iter().any(|line| line.ends_with(" proc") || line.ends_with(" r")), "{log:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", init.pid)).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).unwrap();
    assert_eq!(children, "");
    assert!(pod.journal().contains(&Journal::PodInit { process: init }));
}

fn root_pod_init_ends() {
    let mut pod = shared("init");
    let mut plan = shell("sleep 1000");
    plan.pid = PidNamespace::Pod;
    pod.start(1, plan);
    let init = process::pidfd_open(pod.init.unwrap().pid).unwrap();
    process::pidfd_send_signal(&init, 9).unwrap();
    assert_eq!(pod.exit(1).code, 137);
    pod.hear(|frame| matches!(frame.body, FromMonitor::PodInitExited { .. }).then_some(()));
    assert!(pod.journal().iter().any(|entry| matches!(entry, Journal::PodInitExited { .. })));
    let mut plan = shell("true");
    plan.pid = PidNamespace::Pod;
    let request = pod.begin(2, plan, vec![]);
    let FromMonitor::Failed(failure) = pod.reply(request) else { panic!("started") };
    assert!(failure.step.contains("PID namespace"), "{failure}");
    pod.quit();
}

fn root_target() {
    let mut pod = Pod::new("target");
    pod.start(1, shell("sleep 1000"));
    let mut plan = shell("cat /proc/1/cmdline; echo; echo $$");
    plan.pid = PidNamespace::Target(id(1));
    let (code, log) = pod.run(2, plan);
    assert!(code == 0 && log[0].contains("sleep"), "{log:?}");
    // The next one is back in a namespace of its own.
    assert_eq!(pod.run(3, shell("echo $$")).1, ["stdout F 1"]);
    assert_eq!(namespace_of(pod.process.pid), namespace_of(process::own_pid()));
}

fn namespace_of(pid: i32) -> u64 {
    fd::inode(fs::File::open(format!("/proc/{pid}/ns/pid")).unwrap()).unwrap().1
}

fn root_quit() {
    let mut pod = shared("quit");
    let mut plan = shell("trap '' TERM; sleep 1000");
    plan.pid = PidNamespace::Pod;
    let process = pod.start(1, plan);
    pod.start(2, shell("sleep 1000"));
    pod.quit();
    assert!(!fs::exists(format!("/proc/{}", process.pid)).unwrap());
    let exits = pod.journal().into_iter().filter(|e| matches!(e, Journal::Exited { .. })).count();
    assert_eq!(exits, 2);
}

fn root_more_descriptors() {
    let mut pod = Pod::new("more");
    let (request, root) = pod.begin_without_root(1, shell("exit 4"));
    assert_eq!(pod.state(), []);
    pod.send(&ToMonitor::Descriptors { number: request }, &[root]);
    assert!(matches!(pod.reply(request), FromMonitor::Launched { .. }));
    assert_eq!(pod.exit(1).code, 4);
}

fn root_dead_monitor() {
    let mut pod = shared("dead");
    let mut plan = shell("sleep 1000");
    plan.pid = PidNamespace::Pod;
    let first = process::pidfd_open(pod.start(1, plan).pid).unwrap();
    let init = process::pidfd_open(pod.init.unwrap().pid).unwrap();
    process::pidfd_send_signal(&pod.monitor, 9).unwrap();
    fd::wait_readable(&pod.monitor).unwrap();
    // The orphan became a child of this test; pod-init waits in the kernel until it is reaped.
    assert_eq!(process::reap_blocking(&first).unwrap(), 137);
    fd::wait_readable(&init).unwrap();
}
