//! Pods and containers through their lives: states, codes, signals, grace, repeats, names.

use shim_proto::runtime_v1 as cri;
use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network};
use wherry_tests::{log, until};

#[test]
fn root_a_container_goes_from_created_to_gone() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("life", Network::Node);
    assert!(cri.is_ready(&pod.id));
    let id = pod.create(&pod.container("c", &["tail", "-f", "/dev/null"]));
    let created = cri.status(&id);
    assert_eq!(created.state(), cri::ContainerState::ContainerCreated);
    assert!(created.created_at > 0 && created.started_at == 0 && created.finished_at == 0);

    cri.start(&id).unwrap();
    let running = cri.status(&id);
    assert_eq!(running.state(), cri::ContainerState::ContainerRunning);
    assert!(running.started_at >= created.created_at && running.finished_at == 0);
    let again = cri.start(&id).unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition, "{again:?}");

    cri.stop(&id, 0).unwrap();
    let ended = cri.status(&id);
    assert_eq!(ended.state(), cri::ContainerState::ContainerExited);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"));
    assert!(ended.finished_at >= ended.started_at && ended.started_at == running.started_at);

    cri.remove(&id).unwrap();
    assert!(cri.containers().unwrap().is_empty());
    assert_eq!(cri.inspect(&id).unwrap_err().code(), Code::NotFound);
    cri.stop_pod(&pod.id).unwrap();
    assert!(!cri.is_ready(&pod.id));
    assert_eq!(cri.pods().unwrap().len(), 1);
    pod.remove();
    assert!(cri.pods().unwrap().is_empty());
    assert_eq!(cri.pod_status(&pod.id).unwrap_err().code(), Code::NotFound);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_stop_and_remove_may_be_repeated() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("repeats", Network::Pod);
    let id = pod.idle("c");
    for _ in 0..2 {
        cri.stop(&id, 0).unwrap();
    }
    for _ in 0..2 {
        cri.remove(&id).unwrap();
    }
    cri.stop(&id, 0).unwrap();
    for _ in 0..2 {
        cri.stop_pod(&pod.id).unwrap();
    }
    for _ in 0..2 {
        cri.remove_pod(&pod.id).unwrap();
    }
    cri.stop_pod(&pod.id).unwrap();
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_runs_can_be_removed_with_its_pod() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("running", Network::Pod);
    let first = pod.idle("first");
    pod.idle("second");
    pod.create(&pod.container("third", &["true"]));
    assert_ne!(Leaks::before(&daemon), leaks, "the count sees nothing of all this");
    cri.remove(&first).unwrap();
    assert_eq!(cri.containers().unwrap().len(), 2);
    // A kubelet stops first; a person may not.
    cri.remove_pod(&pod.id).unwrap();
    assert!(cri.containers().unwrap().is_empty());
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_taken_name_is_refused_and_free_after_the_removal() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("name", Network::Node);
    let same = cri.run_pod(&pod.config).unwrap_err();
    assert_eq!(same.code(), Code::AlreadyExists);
    assert!(same.message().contains(&pod.id), "{same:?}");
    let config = pod.container("c", &["true"]);
    let id = pod.create(&config);
    let same = cri.create(&pod.id, &config, &pod.config).unwrap_err();
    assert_eq!(same.code(), Code::AlreadyExists);
    assert!(same.message().contains(&id), "{same:?}");
    // The next attempt is another name.
    let mut next = config.clone();
    next.metadata.as_mut().unwrap().attempt = 1;
    pod.create(&next);
    cri.remove(&id).unwrap();
    pod.create(&config);
    pod.remove();
    daemon.pod("name", Network::Node).remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_codes_and_signals_are_told_as_they_were() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("codes", Network::Node);
    for (script, code, reason) in
        [("exit 0", 0, "Completed"), ("exit 1", 1, "Error"), ("exit 255", 255, "Error")]
    {
        let id = pod.run_in(&format!("exit-{code}"), &["sh", "-c", script]);
        let ended = cri.ended(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (code, reason), "{script}");
    }
    pod.remove();
    // The first process of a namespace ignores its own signals; in a shared one, no container has it.
    let mut config = requests::pod("signals", Network::Node, &daemon.logs());
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let pod = Pod::run(&daemon, config);
    for (signal, code) in [("SEGV", 139), ("USR1", 138), ("KILL", 137)] {
        let id = pod.run_in(signal, &["sh", "-c", &format!("kill -{signal} $$; exit 1")]);
        let ended = cri.ended(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (code, "Error"), "{signal}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_stopping_asks_first_and_kills_then() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("grace", Network::Node);
    let script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let polite = pod.run_in("polite", &["sh", "-c", script]);
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    let deaf = pod.run_in("deaf", &["sh", "-c", script]);
    let mut config = pod.container(
        "other",
        &["sh", "-c", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done"],
    );
    config.stop_signal = cri::Signal::Sigusr1.into();
    let other = pod.start(&config);
    for name in ["polite", "deaf", "other"] {
        until("a container that listens", || (log::said(pod.log(name)) == "ready\n").then_some(()));
    }
    cri.stop(&polite, 100).unwrap();
    assert_eq!(cri.status(&polite).exit_code, 3);
    cri.stop(&deaf, 1).unwrap();
    assert_eq!(cri.status(&deaf).exit_code, 137);
    assert_eq!(log::said(pod.log("deaf")), "ready\nasked\n");
    cri.stop(&other, 100).unwrap();
    assert_eq!(cri.status(&other).exit_code, 4);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_start_that_fails_is_told_and_harms_nobody() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("failed", Network::Node);
    let neighbour = pod.idle("neighbour");
    for (name, program, why) in [
        ("missing", "/no/such/program", "No such file or directory"),
        ("text", "/etc/no-program", "Permission denied"),
    ] {
        let id = pod.create(&pod.container(name, &[program]));
        let failed = cri.start(&id).unwrap_err();
        assert!(failed.message().contains(program), "{failed:?}");
        assert!(failed.message().contains(why), "{failed:?}");
        let ended = cri.status(&id);
        assert_eq!(ended.state(), cri::ContainerState::ContainerExited);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"));
        assert!(ended.message.contains(why), "{ended:?}");
        assert!(ended.finished_at > 0);
    }
    assert_eq!(cri.status(&neighbour).state(), cri::ContainerState::ContainerRunning);
    let lost = pod.container("c", &["true"]);
    let lost = cri::ContainerConfig {
        image: Some(cri::ImageSpec { image: "localhost/none:1".into(), ..Default::default() }),
        ..lost
    };
    let refused = cri.create(&pod.id, &lost, &pod.config).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("localhost/none:1"), "{refused:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_stopped_pod_takes_no_containers() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("stopped", Network::Pod);
    let waiting = pod.create(&pod.container("waiting", &["true"]));
    let ran = pod.idle("ran");
    cri.stop_pod(&pod.id).unwrap();
    let ended = cri.status(&ran);
    assert_eq!((ended.state(), ended.exit_code), (cri::ContainerState::ContainerExited, 137));
    let refused = cri.start(&waiting).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let config = pod.container("late", &["true"]);
    let refused = cri.create(&pod.id, &config, &pod.config).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    // What was, can be seen until it is removed.
    assert_eq!(cri.containers().unwrap().len(), 2);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_pods_with_the_same_requests_at_once_are_one_pod() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let config = requests::pod("once", Network::Pod, &daemon.logs());
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || daemon.cri().run_pod(&config);
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let made: Vec<String> = made.into_iter().map(Result::unwrap).collect();
    let pods = daemon.cri().pods().unwrap();
    assert_eq!(pods.len(), 1);
    assert!(!made.is_empty() && made.iter().all(|id| *id == pods[0].id), "{made:?}");
    // Who came when the answer had been given already is told whose the name is.
    for refusal in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(refusal.code(), Code::AlreadyExists, "{refusal:?}");
    }
    daemon.cri().remove_pod(&pods[0].id).unwrap();
    leaks.assert_same_after(&daemon);
}
