//! The start explained: which steps are told of each way in which something is made, once each. What verbose
//! statuses tell beside the steps is `inspect`.

use super::inspect::{has, steps};
use serde_json::Value;
use shim_proto::runtime_v1 as cri;
use std::fs;
use wherry_tests::cri::Images;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::handlers;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::registry::Registry;
use wherry_tests::requests::{self, Network};
use wherry_tests::until;

/// A plugin that passes on what it is given, slowly.
const SLOW: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
given = json.load(sys.stdin)
verb = os.environ["CNI_COMMAND"]
if verb == "VERSION":
    print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}))
if verb == "ADD":
    time.sleep(0.05)
    print(json.dumps(given["prevResult"]))
"#;

/// The steps of something with their lengths, in milliseconds.
fn lengths(phases: &Value) -> Vec<(String, f64)> {
    let steps = phases["steps"].as_array().unwrap().iter();
    let length = |step: &Value| {
        (step["phase"].as_str().unwrap().to_owned(), step["tookMs"].as_f64().unwrap())
    };
    steps.map(length).collect()
}

/// How often a step is told.
fn count(phases: &Value, phase: &str) -> usize {
    lengths(phases).iter().filter(|(known, _)| known == phase).count()
}

fn verbose_image(daemon: &Daemon, name: &str) -> Value {
    let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
    let request = cri::ImageStatusRequest { image, verbose: true };
    let call = |mut client: Images| async move { client.image_status(request).await };
    let answer = daemon.cri().ask_images(call).unwrap().into_inner();
    serde_json::from_str(&answer.info["info"]).unwrap()
}

#[test]
fn root_a_pull_for_a_pod_is_among_its_containers_steps() {
    let Some(daemon) = Daemon::start() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    let image = Image::with_layers(&[100_000, 1, 2_000_000]);
    let name = registry.publish("team/app", "1", &image);
    let pod = daemon.pod("pulls", Network::Node);
    let request = cri::PullImageRequest {
        image: Some(cri::ImageSpec { image: name.clone(), ..Default::default() }),
        sandbox_config: Some(pod.config.clone()),
        ..Default::default()
    };
    let call = |mut client: Images| async move { client.pull_image(request).await };
    daemon.cri().ask_images(call).unwrap();
    let mut config = pod.container("c", &["/none"]);
    config.image = Some(cri::ImageSpec { image: name.clone(), ..Default::default() });
    let phases = daemon.cri().info(&pod.create(&config))["phases"].clone();
    let found = steps(&phases);
    has(&found, &["pull", "pull_wait", "pull_resolve", "pull_layers", "pull_publish", "root"]);
    let length = |wanted: &str| {
        let all = lengths(&phases);
        all.into_iter().find(|(phase, _)| phase == wanted).unwrap().1
    };
    let parts = ["pull_wait", "pull_resolve", "pull_layers", "pull_publish"].map(length);
    let (sum, whole) = (parts.iter().sum::<f64>(), length("pull"));
    assert!(parts.iter().all(|took| *took > 0.0) && sum <= whole, "{parts:?} of {whole}");
    // It was one container's; and it is the image's.
    config.metadata.as_mut().unwrap().attempt = 1;
    let second = daemon.cri().info(&pod.create(&config));
    assert_eq!(count(&second["phases"], "pull"), 0);
    let told = verbose_image(&daemon, &name);
    assert_eq!(count(&told["phases"], "pull_layers"), 1);
    let layers = told["chain"].as_array().unwrap();
    assert_eq!(Some(&told["chainID"]), layers.last());
    let ids = told["imageSpec"]["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[0]), (layers.len(), &layers[0]));
    pod.remove();
    daemon.cri().remove_image(&name).unwrap();
    drop(registry);
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pod_in_a_user_namespace_has_its_steps_too() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = requests::pod("mapped", Network::Pod, &daemon.logs());
    let line = |host_id| vec![cri::IdMapping { host_id, container_id: 0, length: 65_536 }];
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options.get_or_insert_default().userns_options = Some(cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: line(700_000),
        gids: line(900_000),
    });
    let pod = Pod::run(&daemon, config);
    let id = pod.idle("c");
    let info = cri.pod_info(&pod.id);
    let found = steps(&info["phases"]);
    has(&found, &["wait", "record", "fork", "setup", "namespace", "plugin bridge", "files"]);
    let linux = &info["runtimeSpec"]["linux"];
    assert_eq!(linux["uidMappings"][0]["hostID"], 700_000);
    assert_eq!(linux["gidMappings"][0]["hostID"], 900_000);
    let spaces = linux["namespaces"].as_array().unwrap();
    for (kind, name) in [("user", "user"), ("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
        let path = spaces.iter().find(|one| one["type"] == kind).unwrap()["path"].as_str().unwrap();
        // The network's is a pin, which a link is not.
        let inside = format!("stat -L -c %i {path}");
        let own = cri.shell(&id, &format!("stat -L -c %i /proc/self/ns/{name}"));
        assert_eq!(daemon.space().shell(&inside).trim(), own.trim(), "{kind} {path}");
    }
    let phases = cri.info(&id)["phases"].clone();
    has(&steps(&phases), &["user_namespace", "root", "plan", "clone", "mounts", "exec"]);
    // Borrowed when it was made, and when it was started.
    assert_eq!(count(&phases, "user_namespace"), 2);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_another_runtimes_work_is_a_step_of_the_start() {
    let Some(daemon) = Daemon::start() else { return };
    for name in handlers::each() {
        let leaks = Leaks::before(&daemon);
        let cri = daemon.cri();
        let config = requests::pod(name, Network::Node, &daemon.logs());
        let id = cri.run_pod_by(&config, name).unwrap();
        let request = requests::container("c", &["tail", "-f", "/dev/null"], &config);
        let container = cri.create(&id, &request, &config).unwrap();
        cri.start(&container).unwrap();
        let info = cri.info(&container);
        let found = steps(&info["phases"]);
        has(&found, &["log", "cgroup", "sources", "handover", "handler_create", "handler_start"]);
        assert!(!found.contains("mounts") && !found.contains("exec"), "{found:?}");
        for step in ["handler_create", "handler_start"] {
            let all = lengths(&info["phases"]);
            let took = all.iter().find(|(phase, _)| phase == step).unwrap().1;
            assert!(took > 0.5, "no program runs in {took} ms: {step}");
        }
        // The spec is what the program was given.
        assert_eq!(info["runtimeSpec"]["process"]["args"][0], "tail");
        assert!(info["runtimeSpec"]["root"]["path"].is_string() && info["plan"].is_null());
        cri.remove_pod(&id).unwrap();
        fs::remove_dir_all(daemon.logs().join(name)).unwrap();
        leaks.assert_same_after(&daemon);
    }
}

#[test]
fn root_a_container_that_is_started_again_has_the_steps_of_its_last_start() {
    let setup = Setup { network: false, ..Setup::default() };
    let Some(daemon) = Daemon::with(&setup) else { return };
    let leaks = Leaks::before(&daemon);
    let run = daemon.wherry(&["run", "-d", "--name", "again", NAME, "true"]);
    assert!(run.status.success());
    let id = String::from_utf8(run.stdout).unwrap().trim().to_owned();
    for _ in 0..3 {
        daemon.cri().ended(&id);
        assert!(daemon.wherry(&["start", "again"]).status.success());
        let phases = daemon.cri().info(&id)["phases"].clone();
        has(&steps(&phases), &["wait", "log", "cgroup", "sources", "clone", "exec"]);
        assert_eq!((count(&phases, "exec"), count(&phases, "root")), (1, 0));
    }
    daemon.cri().ended(&id);
    // Our own bridge is one step, and no plugin of anybody.
    let pod = daemon.cri().info(&id)["sandboxID"].as_str().unwrap().to_owned();
    let info = daemon.cri().pod_info(&pod);
    has(&steps(&info["phases"]), &["plugin wherry"]);
    assert_eq!(info["network"]["plugins"][0]["type"], "wherry");
    assert!(daemon.wherry(&["rm", "again"]).status.success());
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_changed_on_the_node_does_not_change_what_is_told() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let folder = daemon.beside("cdi");
    fs::create_dir_all(&folder).unwrap();
    let text = r#"{"cdiVersion": "0.6.0", "kind": "tests.dev/told", "devices": [{"name": "x",
        "containerEdits": {"env": ["TOLD=1"], "deviceNodes": [{"path": "/dev/told",
        "hostPath": "/dev/zero"}], "mounts": [{"hostPath": "/etc", "containerPath": "/told"}]}}]}"#;
    fs::write(folder.join("told.json"), text).unwrap();
    let profile = daemon.beside("profile.json");
    let allow = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"],
        "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, allow).unwrap();
    let pod = daemon.pod("told", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    config.cdi_devices = vec![cri::CdiDevice { name: "tests.dev/told=x".into() }];
    let security = requests::security(&mut config);
    security.seccomp = Some(cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::Localhost.into(),
        localhost_ref: profile.to_string_lossy().into_owned(),
    });
    let id = pod.start(&config);
    let told = || daemon.cri().info(&id)["runtimeSpec"].clone();
    let first = told();
    let text = first.to_string();
    for part in ["TOLD=1", "/dev/told", "\"/told\"", "swapon", "CAP_KILL"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(told(), first);
    fs::remove_file(folder.join("told.json")).unwrap();
    daemon.restart();
    assert_eq!(told(), first);
    // A profile that is another one now is not told as if it were in force.
    fs::write(&profile, allow.replace("swapon", "swapoff")).unwrap();
    assert!(told()["linux"]["seccomp"].is_null());
    fs::remove_file(&profile).unwrap();
    assert!(told()["linux"]["seccomp"].is_null());
    // The built-in one is told whole.
    let plain = pod.idle("plain");
    let info = daemon.cri().info(&plain);
    let calls = info["runtimeSpec"]["linux"]["seccomp"]["syscalls"].to_string();
    assert!(calls.contains("\"read\"") && calls.contains("\"clone3\""), "{calls}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_whoever_asks_again_is_not_counted_again() {
    let config = "[metrics]\nlisten = \"unix:FOLDER/metrics.sock\"\n".to_owned();
    let Some(daemon) = Daemon::with(&Setup { config, ..Setup::default() }) else { return };
    let before = super::telemetry::series(&daemon, "/metrics");
    let pod = daemon.pod("once", Network::Node);
    let config = pod.container("c", &["tail", "-f", "/dev/null"]);
    let id = pod.create(&config);
    for _ in 0..2 {
        // Whether the same again is answered or refused is not the question here.
        let _again = daemon.cri().run_pod(&pod.config);
        let _again = daemon.cri().create(&pod.id, &config, &pod.config);
    }
    daemon.cri().start(&id).unwrap();
    let page = super::telemetry::series(&daemon, "/metrics");
    for (of, phase) in [("pod", "setup"), ("container", "root"), ("container", "exec")] {
        let name =
            format!("wherry_phase_seconds_count{{of=\"{of}\",phase=\"{phase}\",plugin=\"\"}}");
        let number = |text: Option<&String>| text.map_or(0, |text| text.parse::<u64>().unwrap());
        let grown = number(page.get(&name)) - number(before.get(&name));
        assert_eq!(grown, 1, "{name}");
    }
    pod.remove();
}

#[test]
fn root_each_plugin_of_a_chain_is_told_and_timed() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("chain", Network::Pod);
    let info = daemon.cri().pod_info(&pod.id);
    let plugins: Vec<(&str, &str)> = info["network"]["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["type"].as_str().unwrap(), one["done"].as_str().unwrap()))
        .collect();
    assert_eq!(plugins, [("bridge", "in process"), ("portmap", "left out")]);
    assert_eq!(info["network"]["name"], "tests");
    assert_eq!(count(&info["phases"], "plugin bridge"), 1);
    pod.remove();
    // A plugin that must be run is a step of its own.
    let program = daemon.beside("bin").join("slow");
    fs::write(&program, SLOW).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let conf = daemon.beside("cni").join("10-tests.conflist");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(
        &conf,
        text.replace("{\"type\": \"portmap\"", "{\"type\": \"slow\"}, {\"type\": \"portmap\""),
    )
    .unwrap();
    let pod = until("a pod in the new network", || {
        let pod = daemon.pod("slow", Network::Pod);
        let told = daemon.cri().pod_info(&pod.id)["network"]["plugins"].clone();
        if told.as_array().unwrap().len() == 3 {
            return Some(pod);
        }
        pod.remove();
        None
    });
    let info = daemon.cri().pod_info(&pod.id);
    let all = lengths(&info["phases"]);
    let slow = all.iter().find(|(phase, _)| phase == "plugin slow").unwrap().1;
    assert!(slow >= 50.0, "{all:?}");
    assert_eq!(info["network"]["plugins"][1]["done"], "run");
    pod.remove();
    leaks.assert_same_after(&daemon);
}
