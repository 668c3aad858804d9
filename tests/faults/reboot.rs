//! The machine goes down and comes up again: no ghost is shown as running, what had been there is told
//! from the ledger, addresses are free, and what is marked never to restart has not run twice.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::Network;
use wherry_tests::until;

/// Pods' addresses that are taken, by the files of host-local.
fn leases(daemon: &Daemon) -> usize {
    let folder = daemon.space().path(daemon.root().join("cni/networks/tests"));
    let names = std::fs::read_dir(folder).unwrap().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count()
}

#[test]
fn root_a_reboot_leaves_no_ghosts_and_forgets_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("before", Network::Pod);
    let running = pod.idle("running");
    let failed = pod.run_in("failed", &["sh", "-c", "exit 7"]);
    let done = pod.run_in("done", &["true"]);
    let known = [&failed, &done].map(|id| cri.ended(id));
    let created = pod.create(&pod.container("created", &["true"]));
    let gone = daemon.pod("gone", Network::Pod);
    gone.remove();
    let started = cri.status(&running).started_at;
    assert_eq!(leases(&daemon), 1);

    daemon.reboot();
    daemon.start_again();
    // The first answers are true already.
    let pods = cri.pods().unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!((pods[0].id.as_str(), cri.is_ready(&pod.id)), (pod.id.as_str(), false));
    assert_eq!(pods[0].metadata, pod.config.metadata);
    for (before, id) in known.iter().zip([&failed, &done]) {
        let now = cri.status(id);
        assert_eq!(now.state(), cri::ContainerState::ContainerExited);
        let facts =
            |s: &cri::ContainerStatus| (s.exit_code, s.reason.clone(), s.started_at, s.finished_at);
        assert_eq!(facts(&now), facts(before));
    }
    let ghost = cri.status(&running);
    assert_eq!((ghost.state(), ghost.exit_code), (cri::ContainerState::ContainerExited, 255));
    assert!(!ghost.reason.is_empty() && ghost.message.contains("reboot"), "{ghost:?}");
    assert_eq!(ghost.started_at, started);
    assert_ne!(cri.status(&created).state(), cri::ContainerState::ContainerRunning);
    assert!(cri.start(&created).is_err());
    until("free addresses", || (leases(&daemon) == 0).then_some(()));
    assert!(daemon.space().named("tail").is_empty());

    // A kubelet makes the pod anew, beside the old one, and removes that one later.
    let mut next = pod.config.clone();
    next.metadata.as_mut().unwrap().attempt = 1;
    let next = Pod::run(&daemon, next);
    let id = next.idle("running");
    assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    pod.remove();
    assert_eq!(cri.shell(&id, "echo here"), "here\n");
    next.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_was_removed_before_a_reboot_stays_removed() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("old", Network::Pod);
    let one = pod.idle("one");
    let two = pod.idle("two");
    cri.remove(&one).unwrap();
    daemon.reboot();
    daemon.start_again();
    assert_eq!(cri.containers().unwrap().len(), 1);
    assert_eq!(cri.status(&two).exit_code, 255);
    // A second reboot tells the same, although the first one's daemon had nothing to do.
    daemon.reboot();
    daemon.start_again();
    let known = cri.status(&two);
    assert_eq!((known.exit_code, cri.is_ready(&pod.id)), (255, false));
    pod.remove();
    daemon.reboot();
    daemon.start_again();
    assert!(cri.pods().unwrap().is_empty() && cri.containers().unwrap().is_empty());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_ledger_forgets_what_is_gone_and_nothing_else() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let stays = daemon.pod("stays", Network::Pod);
    let failed = stays.run_in("failed", &["sh", "-c", "exit 7"]);
    let known = cri.ended(&failed);
    let running = stays.idle("running");
    // Each of these is a large line about a pod, and is gone again.
    for number in 0..20 {
        let mut config =
            wherry_tests::requests::pod(&format!("large-{number}"), Network::Node, &daemon.logs());
        config.annotations.insert("large".to_owned(), "x".repeat(300_000));
        let pod = Pod::run(&daemon, config);
        pod.idle("c");
        pod.remove();
    }
    let ledger = daemon.space().path(daemon.root().join("ledger"));
    let length = || std::fs::metadata(&ledger).unwrap().len();
    until("a ledger without what is gone", || (length() < 2 << 20).then_some(()));
    // What is written after that counts too.
    let later = stays.run_in("later", &["sh", "-c", "exit 9"]);
    cri.ended(&later);
    daemon.reboot();
    daemon.start_again();
    assert_eq!((cri.pods().unwrap().len(), cri.containers().unwrap().len()), (1, 3));
    let told = cri.status(&failed);
    assert_eq!((told.exit_code, told.finished_at), (7, known.finished_at));
    assert_eq!(cri.status(&later).exit_code, 9);
    assert_eq!(cri.status(&running).exit_code, 255);
    stays.remove();
    leaks.assert_same_after(&daemon);
}
