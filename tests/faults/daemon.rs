//! `kill -9` of the daemon: pods run on, logs grow without a gap, what happened meanwhile is told.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{Network, resources};
use wherry_tests::{log, until};

#[test]
fn root_a_log_grows_on_without_a_gap() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("log", Network::Pod);
    let script = "i=0; while :; do echo $i; i=$((i+1)); usleep 500; done";
    let id = pod.run_in("c", &["sh", "-c", script]);
    let count = || log::read(pod.log("c")).len();
    for _ in 0..2 {
        daemon.kill();
        let before = count();
        until("lines that nobody watches", || (count() > before + 200).then_some(()));
        daemon.start_again();
    }
    // The new daemon has taken over, not only found it.
    let before = count();
    std::fs::rename(pod.log("c"), pod.log("old")).unwrap();
    cri.reopen_log(&id).unwrap();
    until("lines in the new file", || (count() > 10).then_some(()));
    cri.stop(&id, 0).unwrap();
    let all = log::said(pod.log("old")) + &log::said(pod.log("c"));
    let numbers: Vec<usize> = all.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() > before);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_runs_is_the_same_after_a_restart() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("same", Network::Pod);
    let running = pod.idle("running");
    let created = pod.create(&pod.container("created", &["sh", "-c", "exit 9"]));
    let ended = pod.run_in("ended", &["sh", "-c", "exit 4"]);
    cri.ended(&ended);
    let state = || {
        let pods = cri.pods().unwrap();
        let pod = cri.pod_status(&pod.id).unwrap();
        let containers = cri.containers().unwrap();
        let statuses = [&running, &created, &ended].map(|id| cri.inspect(id).unwrap());
        (pods, pod, containers, statuses)
    };
    let before = state();
    daemon.restart();
    assert_eq!(state(), before);
    // And it can be worked with.
    assert_eq!(cri.shell(&running, "echo here"), "here\n");
    cri.start(&created).unwrap();
    assert_eq!(cri.ended(&created).exit_code, 9);
    let new = pod.run_in("new", &["sh", "-c", "exit 5"]);
    assert_eq!(cri.ended(&new).exit_code, 5);
    let taken = cri.run_pod(&pod.config).unwrap_err();
    assert_eq!(taken.code(), tonic::Code::AlreadyExists, "{taken:?}");
    cri.stop(&running, 0).unwrap();
    assert_eq!(cri.status(&running).exit_code, 137);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

/// A container that does this once the file `go` is in its folder `/wait`.
fn waiting(
    pod: &Pod<'_>,
    name: &str,
    folder: &std::path::Path,
    script: &str,
) -> cri::ContainerConfig {
    let script = format!("while ! test -e /wait/go; do usleep 5000; done; {script}");
    let mut config = pod.container(name, &["sh", "-c", &script]);
    config.mounts = vec![cri::Mount {
        container_path: "/wait".into(),
        host_path: folder.to_string_lossy().into_owned(),
        readonly: true,
        ..Default::default()
    }];
    config
}

#[test]
fn root_ends_that_nobody_saw_are_told() {
    let Some(daemon) = Daemon::start() else { return };
    let folder = daemon.beside("wait");
    std::fs::create_dir(&folder).unwrap();
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("ends", Network::Node);
    let expected = [
        ("well", "echo last words", 0, "Completed"),
        ("badly", "exit 7", 7, "Error"),
        ("hungry", "exec tail /dev/zero", 137, "OOMKilled"),
    ];
    let ids = expected.map(|(name, script, ..)| {
        let mut config = waiting(&pod, name, &folder, script);
        resources(&mut config).memory_limit_in_bytes = 24 << 20;
        resources(&mut config).memory_swap_limit_in_bytes = 24 << 20;
        pod.start(&config)
    });
    let other = pod.idle("other");
    daemon.kill();
    std::fs::write(folder.join("go"), "").unwrap();
    let gone = || {
        let left = daemon.space().named("sh").len() + daemon.space().named("tail").len();
        (left == 1).then_some(())
    };
    until("the end of all but one", gone);
    daemon.start_again();
    let later = pod.create(&pod.container("later", &["true"]));
    let later = cri.status(&later).created_at;
    for ((name, _, code, reason), id) in expected.iter().zip(&ids) {
        // At once: nothing has to be waited for after the first answer.
        let status = cri.status(id);
        assert_eq!(status.state(), cri::ContainerState::ContainerExited, "{name}");
        assert_eq!((status.exit_code, status.reason.as_str()), (*code, *reason), "{name}");
        assert!(status.started_at <= status.finished_at && status.finished_at < later, "{name}");
    }
    assert_eq!(log::said(pod.log("well")), "last words\n");
    assert_eq!(cri.status(&other).state(), cri::ContainerState::ContainerRunning);
    pod.remove();
    std::fs::remove_file(folder.join("go")).unwrap();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_command_ends_with_the_daemon_that_asked_for_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("command", Network::Node);
    // A shell as the first process: it reaps what the command leaves.
    let id = pod.run_in("c", &["sh", "-c", "while :; do usleep 10000; done"]);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| cri.exec(&id, &["sh", "-c", "sleep 1000 & sleep 1000"], 0));
        until("the command", || (daemon.space().named("sleep").len() == 2).then_some(()));
        daemon.kill();
        assert!(command.join().unwrap().is_err());
    });
    let gone = || daemon.space().named("sleep").is_empty().then_some(());
    until("an end of what nobody waits for", gone);
    daemon.start_again();
    assert_eq!(cri.shell(&id, "echo here"), "here\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_sixty_pods_are_in_the_first_list() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pods: Vec<Pod<'_>> = (0..60)
        .map(|number| {
            let network = if number % 6 == 0 { Network::Pod } else { Network::Node };
            let pod = daemon.pod(&format!("many-{number}"), network);
            pod.idle("c");
            pod
        })
        .collect();
    daemon.restart();
    let listed = cri.pods().unwrap();
    let ready = cri::PodSandboxState::SandboxReady;
    assert_eq!(listed.iter().filter(|pod| pod.state() == ready).count(), 60);
    let containers = cri.containers().unwrap();
    let running = cri::ContainerState::ContainerRunning;
    assert_eq!(containers.iter().filter(|container| container.state() == running).count(), 60);
    std::thread::scope(|scope| {
        for some in pods.chunks(15) {
            scope.spawn(|| some.iter().for_each(Pod::remove));
        }
    });
    leaks.assert_same_after(&daemon);
}
