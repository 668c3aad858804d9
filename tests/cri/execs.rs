//! ExecSync: output, codes, the container's own context, and an end to everything that it started.

use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, security};
use wherry_tests::until;

#[test]
fn root_a_command_says_and_ends_as_it_does() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("exec", Network::Node);
    let id = pod.idle("c");
    let said = cri.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 5"], 10).unwrap();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.code), ("out\n", "err\n", 5));
    let said = cri.exec(&id, &["sh", "-c", "kill -9 $$"], 10).unwrap();
    assert_eq!(said.code, 137);
    let large = cri.exec(&id, &["sh", "-c", "yes | head -c 3000000"], 10).unwrap();
    assert_eq!(large.stdout.len(), 3_000_000);
    let missing = cri.exec(&id, &["/no/such/program"], 10).unwrap_err();
    assert!(missing.message().contains("/no/such/program"), "{missing:?}");
    // A log is what the container says, not what somebody looks up in it.
    assert!(wherry_tests::log::read(pod.log("c")).is_empty());
    pod.remove();
    let gone = cri.exec(&id, &["true"], 10).unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_late_command_is_killed_with_all_it_started() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("late", Network::Node);
    let id = pod.idle("c");
    // One in the foreground, one behind it, one that left its session.
    let script = "sleep 1000 & setsid sleep 1000 & sleep 1000";
    let late = cri.exec(&id, &["sh", "-c", script], 1).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    let gone = || daemon.space().named("sleep").is_empty().then_some(());
    until("an end of everything it started", gone);
    // What a command leaves behind does not hold its answer back.
    let said = cri.exec(&id, &["sh", "-c", "sleep 1000 & echo done"], 0).unwrap();
    assert_eq!((said.stdout.as_str(), said.code), ("done\n", 0));
    until("an end of what it left", gone);
    assert_eq!(cri.shell(&id, "echo usable"), "usable\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_command_has_the_containers_context() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("context", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    config.working_dir = "/home".into();
    config.envs =
        vec![shim_proto::runtime_v1::KeyValue { key: "ASKED".into(), value: b"for".to_vec() }];
    security(&mut config).run_as_username = "user".into();
    security(&mut config).no_new_privs = true;
    security(&mut config).readonly_rootfs = true;
    let id = pod.start(&config);
    let context = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/$1/status; pwd; \
                   for n in pid mnt ipc uts; do readlink /proc/$1/ns/$n; done; echo $ASKED";
    let own = cri.exec(&id, &["sh", "-c", context, "sh", "self"], 0).unwrap();
    assert_eq!((own.code, own.stderr.as_str()), (0, ""));
    let first = cri.exec(&id, &["sh", "-c", context, "sh", "1"], 0).unwrap();
    assert_eq!(own.stdout, first.stdout);
    assert!(own.stdout.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{}", own.stdout);
    assert!(own.stdout.contains("\n/home\n") && own.stdout.ends_with("\nfor\n"), "{}", own.stdout);
    assert!(own.stdout.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{}", own.stdout);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_ended_container_takes_no_commands() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("ended", Network::Node);
    let created = pod.create(&pod.container("created", &["true"]));
    let refused = cri.exec(&created, &["true"], 10).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let ended = pod.run_in("ended", &["true"]);
    cri.ended(&ended);
    let refused = cri.exec(&ended, &["true"], 10).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    // The end of the container ends a command in it.
    let idle = pod.idle("idle");
    std::thread::scope(|scope| {
        let command = scope.spawn(|| cri.exec(&idle, &["sleep", "1000"], 0));
        until("the command", || (!daemon.space().named("sleep").is_empty()).then_some(()));
        cri.stop(&idle, 0).unwrap();
        let ended = command.join().unwrap();
        assert!(ended.is_err() || ended.is_ok_and(|said| said.code == 137));
    });
    pod.remove();
    leaks.assert_same_after(&daemon);
}
