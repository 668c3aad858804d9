//! Pods of RuntimeClass handlers: crun and runc run the containers, everything else is as without them. Each
//! test is done for each program that is there; of one that is not, that is said. How a handler's life compares
//! with our own in all other respects is seen by running the suites with `WHERRY_HANDLER`.

use shim_proto::runtime_v1 as cri;
use std::path::PathBuf;
use std::process::Command;
use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, resources, security};
use wherry_tests::sessions::{attach, exec};
use wherry_tests::{handlers, log, until};

/// Does a test for each handler, and looks that nothing of it is left.
fn each(test: impl Fn(&Daemon, &str)) {
    for name in handlers::each() {
        let Some(daemon) = Daemon::start() else { return };
        let leaks = Leaks::before(&daemon);
        test(&daemon, name);
        assert_eq!(known(&daemon, name), Vec::<String>::new(), "{name} still knows containers");
        leaks.assert_same_after(&daemon);
    }
}

fn pod<'d>(daemon: &'d Daemon, name: &str, network: Network) -> Pod<'d> {
    Pod::run_by(daemon, requests::pod(&format!("by-{name}"), network, &daemon.logs()), name)
}

fn root_of(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.state().join("handlers").join(name)
}

/// Ids of the containers that a program keeps a state of.
fn known(daemon: &Daemon, name: &str) -> Vec<String> {
    let folder = std::fs::read_dir(daemon.space().path(root_of(daemon, name))).unwrap();
    let names = folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.len() == 64).collect()
}

fn by_program(daemon: &Daemon, name: &str) -> Command {
    let mut command = daemon.space().command(&handlers::program(name).unwrap());
    command.arg("--root").arg(root_of(daemon, name));
    command
}

#[test]
fn root_a_container_of_a_handler_lives_as_every_other() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Pod);
        let status = cri.pod_status(&pod.id).unwrap().status.unwrap();
        assert_eq!(status.runtime_handler, name);
        assert_eq!(cri.pods().unwrap()[0].runtime_handler, name);
        let script =
            "echo out; echo err >&2; trap 'echo bye; exit 7' TERM; while :; do sleep 0.1; done";
        let id = pod.create(&pod.container("c", &["sh", "-c", script]));
        assert!(known(daemon, name).is_empty(), "nothing of the program before the start");
        cri.start(&id).unwrap();
        let running = cri.status(&id);
        assert_eq!(running.state(), cri::ContainerState::ContainerRunning);
        // The program has the same view of it.
        let state = by_program(daemon, name).args(["state", &id]).output().unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
        assert_eq!((&state["status"], &state["pid"]), (&"running".into(), &cri.info(&id)["pid"]));
        assert_eq!(cri.info(&id)["handlerState"], state);
        until("both lines", || (log::read(pod.log("c")).len() == 2).then_some(()));
        let lines = log::read(pod.log("c"));
        let said = |error| lines.iter().find(|line| line.is_error == error).unwrap().text.clone();
        assert_eq!((said(false), said(true)), ("out".to_owned(), "err".to_owned()));
        // It was stopped by its signal, in time.
        cri.stop(&id, 20).unwrap();
        let ended = cri.status(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
        assert!(log::said(pod.log("c")).ends_with("bye\n"));
        until("its state's end", || known(daemon, name).is_empty().then_some(()));
        for _ in 0..2 {
            cri.stop(&id, 0).unwrap();
            cri.remove(&id).unwrap();
        }
        // One that ends before anybody looks, and one that is killed.
        let short = pod.run_in("short", &["sh", "-c", "exit 3"]);
        assert_eq!(cri.ended(&short).exit_code, 3);
        let killed = pod.idle("killed");
        cri.stop(&killed, 0).unwrap();
        assert_eq!(cri.status(&killed).exit_code, 137);
        // One that runs goes with its pod.
        pod.idle("running");
        pod.remove();
    });
}

#[test]
fn root_a_container_of_a_handler_is_what_was_asked_for() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let data = daemon.beside("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "volume\n").unwrap();
        let pod = pod(daemon, name, Network::Pod);
        let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
        config.mounts = vec![cri::Mount {
            container_path: "/data".into(),
            host_path: data.to_str().unwrap().into(),
            readonly: true,
            ..cri::Mount::default()
        }];
        let wanted = security(&mut config);
        wanted.run_as_user = Some(cri::Int64Value { value: 1000 });
        wanted.readonly_rootfs = true;
        wanted.no_new_privs = true;
        wanted.masked_paths = vec!["/proc/kcore".into()];
        wanted.seccomp = Some(cri::SecurityProfile::default());
        config.envs = vec![cri::KeyValue { key: "SAID".into(), value: b"so".to_vec() }];
        let id = pod.start(&config);
        assert_eq!(cri.shell(&id, "id -u; echo $SAID; cat /data/file"), "1000\nso\nvolume\n");
        let proc = cri.shell(&id, "cat /proc/self/status /proc/1/status");
        assert_eq!(proc.matches("Seccomp:\t2").count(), 2, "{proc}");
        assert_eq!(proc.matches("NoNewPrivs:\t1").count(), 2, "{proc}");
        assert_eq!(proc.matches("CapEff:\t0000000000000000").count(), 2, "{proc}");
        assert_eq!(proc.matches("CapBnd:\t00000000a80425fb").count(), 2, "{proc}");
        for script in ["touch /x", "touch /data/x", "head -c1 /proc/kcore | grep -q ."] {
            assert_ne!(cri.exec(&id, &["sh", "-c", script], 0).unwrap().code, 0, "{script}");
        }
        let address = cri.pod_status(&pod.id).unwrap().status.unwrap().network.unwrap().ip;
        assert!(cri.shell(&id, "cat /etc/hosts; ip addr").matches(&address).count() == 2);
        // Containers of a pod share its memory and its name.
        let mut other = pod.container("other", &["tail", "-f", "/dev/null"]);
        security(&mut other).namespace_options = Some(requests::namespaces(&pod.config));
        let other = pod.start(&other);
        assert_eq!(
            cri.shell(&other, "echo here > /dev/shm/x; hostname"),
            cri.shell(&id, "hostname")
        );
        assert_eq!(cri.shell(&id, "cat /dev/shm/x"), "here\n");
        // Nothing of the bundle is in the node's mounts.
        let mounts = daemon.space().first_process("mountinfo");
        assert!(!mounts.contains("/bundle/"), "{mounts}");
        pod.remove();
    });
}

#[test]
fn root_commands_in_it_end_as_they_should() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Node);
        let id = pod.idle("c");
        let said = cri.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 5"], 10).unwrap();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.code), ("out\n", "err\n", 5));
        let missing = cri.exec(&id, &["/no/such/program"], 10).unwrap_err();
        assert_eq!(missing.code(), Code::InvalidArgument, "{missing:?}");
        assert!(missing.message().contains("/no/such/program"), "{missing:?}");
        // Its deadline ends all that it started, and nothing else.
        let late = cri.exec(&id, &["sh", "-c", "sleep 1000 & setsid sleep 1000 & sleep 1000"], 1);
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
        until("their end", || daemon.space().named("sleep").is_empty().then_some(()));
        assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
        // With streams, with a terminal, and with a client that leaves.
        let mut with =
            cri.session(exec(&id, &["sh", "-c", "read x; echo got $x; exit 4"], false)).unwrap();
        with.say("that\n");
        with.hears("got that\n");
        assert_eq!(with.end().unwrap().2, 4);
        let mut tty = cri
            .session(exec(&id, &["sh", "-c", "tty; stty size; read x; stty size"], true))
            .unwrap();
        tty.hears("/dev/pts/");
        tty.hears("24 80\r\n");
        tty.resize(100, 40);
        tty.say("\n");
        tty.hears("40 100\r\n");
        assert_eq!(tty.end().unwrap().2, 0);
        drop(cri.session(exec(&id, &["sleep", "1000"], true)).unwrap());
        until("its end", || daemon.space().named("sleep").is_empty().then_some(()));
        pod.remove();
    });
}

#[test]
fn root_terminals_and_inputs_are_the_monitors() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Node);
        let mut config = pod.container("tty", &["sh", "-c", "echo shown; stty size; cat"]);
        (config.stdin, config.tty) = (true, true);
        let id = pod.start(&config);
        until("the log", || log::said(pod.log("tty")).contains("shown").then_some(()));
        let mut client = cri.session(attach(&id)).unwrap();
        client.say("typed\n");
        client.hears("typed\r\ntyped\r\n");
        client.resize(90, 30);
        let mut look =
            cri.session(exec(&id, &["stty", "-F", "/proc/1/fd/0", "size"], false)).unwrap();
        look.hears("30 90");
        client.detach();
        cri.stop(&id, 0).unwrap();
        let mut config = pod.container("once", &["sh", "-c", "cat; echo over; exit 9"]);
        (config.stdin, config.stdin_once) = (true, true);
        let id = pod.start(&config);
        let client = cri.session(attach(&id)).unwrap();
        client.say("word\n");
        client.end_input();
        let (out, _, code) = client.end().unwrap();
        assert_eq!((out.as_str(), code), ("word\nover\n", 9));
        assert_eq!(log::said(pod.log("once")), "word\nover\n");
        pod.remove();
    });
}

#[test]
fn root_limits_are_ours_and_what_they_do_is_told() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Node);
        let mut config = pod.container("eater", &["tail", "/dev/zero"]);
        resources(&mut config).memory_limit_in_bytes = 24 << 20;
        resources(&mut config).memory_swap_limit_in_bytes = 24 << 20;
        let ended = cri.ended(&pod.start(&config));
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
        let id = pod.idle("c");
        let limit = |bytes| cri::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: bytes,
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = limit(64 << 20);
        cri.ask(|mut c| async move { c.update_container_resources(request).await }).unwrap();
        let group = cri.info(&id)["cgroupsPath"].as_str().unwrap().to_owned();
        let files = ["memory.max", "memory.limit_in_bytes"];
        let file = files.iter().find_map(|file| daemon.cgroups().file(&group, file)).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap().trim(), (64 << 20).to_string());
        let request = cri::ContainerStatsRequest { container_id: id.clone() };
        let stats = cri.ask(|mut c| async move { c.container_stats(request).await }).unwrap();
        let memory = stats.into_inner().stats.unwrap().memory.unwrap();
        assert!(memory.working_set_bytes.unwrap().value > 0);
        let own = cri.shell(&id, "cat /proc/1/cgroup /proc/self/cgroup");
        assert!(!own.contains(&id), "it sees groups of the node: {own}");
        pod.remove();
    });
}

#[test]
fn root_what_the_program_says_of_a_failure_is_the_calls_error() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Node);
        let neighbour = pod.idle("neighbour");
        let id = pod.create(&pod.container("missing", &["/no/such/program"]));
        let failed = cri.start(&id).unwrap_err();
        assert_eq!(failed.code(), Code::InvalidArgument, "{failed:?}");
        for words in [format!("{name} create: "), "/no/such/program".into()] {
            assert!(failed.message().contains(&words), "{failed:?}");
        }
        assert!(!failed.message().contains("\"msg\""), "{failed:?}");
        let ended = cri.status(&id);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"));
        assert!(ended.message.contains("/no/such/program"), "{ended:?}");
        assert_eq!(known(daemon, name), std::slice::from_ref(&neighbour));
        let mut config = pod.container("bytes", &["true"]);
        config.envs = vec![cri::KeyValue { key: "RAW".into(), value: vec![0xff] }];
        let refused = cri.create(&pod.id, &config, &pod.config).unwrap_err();
        assert!(refused.message().contains(name), "{refused:?}");
        assert_eq!(cri.status(&neighbour).state(), cri::ContainerState::ContainerRunning);
        pod.remove();
    });
}

#[test]
fn root_the_daemon_and_the_monitor_may_die() {
    each(|daemon, name| {
        let cri = daemon.cri();
        let pod = pod(daemon, name, Network::Pod);
        let other =
            Pod::run_by(daemon, requests::pod("other", Network::Node, &daemon.logs()), name);
        let made = pod.create(&pod.container("made", &["sh", "-c", "exit 6"]));
        let script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";
        let id = pod.run_in("c", &["sh", "-c", script]);
        let short = pod.run_in("short", &["sh", "-c", "sleep 1; exit 5"]);
        daemon.kill();
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        daemon.start_again();
        let ended = cri.ended(&short);
        assert_eq!(
            (ended.exit_code, cri.status(&id).state()),
            (5, cri::ContainerState::ContainerRunning)
        );
        assert_eq!(cri.shell(&id, "echo still"), "still\n");
        cri.start(&made).unwrap();
        assert_eq!(cri.ended(&made).exit_code, 6);
        cri.stop(&id, 0).unwrap();
        let lines: Vec<usize> =
            log::said(pod.log("c")).lines().map(|n| n.parse().unwrap()).collect();
        assert!(lines.iter().enumerate().all(|(at, n)| at == *n), "a gap: {lines:?}");
        // The monitor: its pod ends, with all that the program made and keeps, and no other does.
        let lost = pod.idle("lost");
        let safe = other.idle("safe");
        let monitor = cri.pod_info(&pod.id)["state"]["facts"]["monitor"]["pid"].as_u64().unwrap();
        daemon.space().kill(u32::try_from(monitor).unwrap());
        let ended = cri.ended(&lost);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
        until("the state's end", || (known(daemon, name) == [safe.clone()]).then_some(()));
        assert_eq!(daemon.space().named("tail").len(), 1);
        pod.remove();
        other.remove();
    });
}

#[test]
fn root_handlers_are_listed_and_others_refused_by_name() {
    let Some(daemon) = Daemon::start() else { return };
    let cri = daemon.cri();
    let there: Vec<&str> = handlers::there().collect();
    let listed = cri.runtime_status().unwrap().runtime_handlers;
    let names: Vec<&str> = listed.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, [&["", "wherry"][..], &there].concat());
    assert!(listed.iter().all(|handler| handler.features.is_some()));
    let config = requests::pod("kata", Network::Node, &daemon.logs());
    let refused = cri.run_pod_by(&config, "kata").unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for word in ["\"kata\"", "\"wherry\""].iter().chain(&there) {
        assert!(refused.message().contains(word), "{refused:?}");
    }
    let image = cri::ImageSpec {
        image: "localhost/none:1".into(),
        runtime_handler: "kata".into(),
        ..Default::default()
    };
    let request = cri::PullImageRequest { image: Some(image), ..Default::default() };
    let refused = cri.ask_images(|mut c| async move { c.pull_image(request).await }).unwrap_err();
    assert!(refused.message().contains("image.runtime_handler"), "{refused:?}");
    for name in there {
        let image = wherry_tests::images::NAME;
        let ran = daemon.wherry(&[
            "run",
            "--rm",
            "--runtime",
            name,
            image,
            "sh",
            "-c",
            "echo by; exit 3",
        ]);
        assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(3), &b"by\n"[..]), "{ran:?}");
    }
    let refused = daemon.wherry(&["run", "--runtime", "kata", wherry_tests::images::NAME, "true"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("kata"), "{told}");
}
