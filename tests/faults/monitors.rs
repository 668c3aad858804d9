//! `kill -9` of a monitor or of the zygote: a pod without its monitor is told to be dead, with the
//! reason, and goes away whole; no other pod notices. A zygote is replaced.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network};
use wherry_tests::until;

fn monitor_of(daemon: &Daemon, pod: &Pod<'_>) -> u32 {
    let info = daemon.cri().pod_info(&pod.id);
    let pid = info["state"]["facts"]["monitor"]["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

/// A pod with a process-id namespace of its own, which its first process holds.
fn shared(daemon: &Daemon, name: &str) -> cri::PodSandboxConfig {
    let mut config = requests::pod(name, Network::Pod, &daemon.logs());
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    config
}

/// What is true of a pod whose monitor was killed, with containers `running` and `ended` (with 7).
fn is_dead(daemon: &Daemon, pod: &Pod<'_>, running: &str, ended: &str) {
    let cri = daemon.cri();
    until("the pod's end", || (!cri.is_ready(&pod.id)).then_some(()));
    let reason = cri.pod_info(&pod.id)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("monitor"), "{reason}");
    let status = cri.ended(running);
    assert_ne!(status.exit_code, 0);
    assert!(!status.reason.is_empty() && status.finished_at >= status.started_at, "{status:?}");
    // What was known stays.
    let status = cri.status(ended);
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    let refused = cri.exec(running, &["true"], 0).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
}

#[test]
fn root_a_killed_monitor_ends_its_pod_and_no_other() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let other = daemon.pod("other", Network::Pod);
    let untouched = other.idle("c");
    for (name, own_pids) in [("plain", false), ("shared", true)] {
        let config = if own_pids {
            shared(&daemon, name)
        } else {
            requests::pod(name, Network::Pod, &daemon.logs())
        };
        let pod = Pod::run(&daemon, config);
        let running = pod.run_in("running", &["sh", "-c", "sleep 1000 & sleep 1000"]);
        let ended = pod.run_in("ended", &["sh", "-c", "exit 7"]);
        cri.ended(&ended);
        daemon.space().kill(monitor_of(&daemon, &pod));
        is_dead(&daemon, &pod, &running, &ended);
        let gone = || daemon.space().named("sleep").is_empty().then_some(());
        until("an end of the pod's processes", gone);
        assert!(cri.is_ready(&other.id));
        assert_eq!(cri.shell(&untouched, "echo here"), "here\n");
        pod.remove();
    }
    // Its name and address are free.
    daemon.pod("plain", Network::Pod).remove();
    other.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_monitor_may_die_while_nobody_watches() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let other = daemon.pod("other", Network::Pod);
    let untouched = other.idle("c");
    let pod = Pod::run(&daemon, shared(&daemon, "dead"));
    let running = pod.run_in("running", &["sh", "-c", "sleep 1000 & sleep 1000"]);
    let ended = pod.run_in("ended", &["sh", "-c", "exit 7"]);
    cri.ended(&ended);
    let monitor = monitor_of(&daemon, &pod);
    daemon.kill();
    daemon.space().kill(monitor);
    daemon.start_again();
    // At once: the first answer is true already.
    assert!(!cri.is_ready(&pod.id) && cri.is_ready(&other.id));
    is_dead(&daemon, &pod, &running, &ended);
    let gone = || daemon.space().named("sleep").is_empty().then_some(());
    until("an end of the pod's processes", gone);
    assert_eq!(cri.shell(&untouched, "echo here"), "here\n");
    pod.remove();
    other.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_killed_zygote_is_replaced() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let old = daemon.pod("old", Network::Pod);
    let before = old.idle("c");
    for zygote in daemon.space().named("wherry-zygote") {
        daemon.space().kill(zygote);
    }
    let new = daemon.pod("new", Network::Pod);
    let after = new.idle("c");
    for id in [&before, &after] {
        assert_eq!(cri.shell(id, "echo here"), "here\n");
    }
    assert_eq!(daemon.space().named("wherry-zygote").len(), 1);
    old.remove();
    new.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_killed_first_process_ends_its_pod() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, shared(&daemon, "first"));
    let id = pod.idle("c");
    let first = daemon.space().named("wherry-podinit");
    assert_eq!(first.len(), 1);
    daemon.space().kill(first[0]);
    until("the pod's end", || (!cri.is_ready(&pod.id)).then_some(()));
    assert_eq!(cri.ended(&id).exit_code, 137);
    pod.remove();
    leaks.assert_same_after(&daemon);
}
