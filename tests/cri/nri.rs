//! Plugins of the Node Resource Interface, with containerd's own stub: what they see, what they change, what
//! they cannot have, and that one which hangs or lies costs nobody more than its deadline.

use serde_json::{Value, json};
use shim_proto::runtime_v1 as cri;
use std::time::{Duration, Instant};
use tonic::Status;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::plugins::Plugin;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network};
use wherry_tests::{handlers, until};

/// Names of the connected plugins, as `crictl info` tells them.
fn connected(daemon: &Daemon) -> Vec<String> {
    let call = |mut client: wherry_tests::cri::Runtime| async move {
        client.status(cri::StatusRequest { verbose: true }).await
    };
    let status = daemon.cri().ask(call).unwrap().into_inner();
    let config: Value = serde_json::from_str(&status.info["config"]).unwrap();
    let names = config["nri"]["plugins"].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn update(daemon: &Daemon, id: &str, cpu_shares: i64) -> Result<(), Status> {
    let container_id = id.to_owned();
    let linux = Some(cri::LinuxContainerResources { cpu_shares, ..Default::default() });
    let call = |mut client: wherry_tests::cri::Runtime| async move {
        let request =
            cri::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
        client.update_container_resources(request).await
    };
    daemon.cri().ask(call).map(drop)
}

fn shares(daemon: &Daemon, id: &str) -> i64 {
    daemon.cri().status(id).resources.unwrap().linux.unwrap().cpu_shares
}

fn has(list: &Value, entry: &str) -> bool {
    list.as_array().unwrap().iter().any(|one| one == entry)
}

#[test]
fn root_a_plugin_sees_a_pods_life_and_changes_a_container() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let shared = daemon.beside("shared");
    std::fs::write(&shared, "from the node").unwrap();
    let adjust = json!({
        "env": [{"key": "GIVEN", "value": "by a plugin"}, {"key": "-TAKEN"}],
        "annotations": {"plugin": "was here"},
        "mounts": [{"destination": "/shared", "type": "bind", "source": shared, "options": ["ro", "rbind"]}],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}],
        "linux": {
            "devices": [{"path": "/dev/given", "type": "c", "major": 1, "minor": 5}],
            "resources": {"cpu": {"shares": {"value": 333}}},
            "oomScoreAdj": {"value": 321},
        },
    });
    let adjust = adjust.to_string();
    let Some(plugin) = Plugin::start(&daemon, &["-adjust", &adjust]) else { return };
    until("the plugin", || (connected(&daemon) == ["10-test"]).then_some(()));
    let pod = daemon.pod("plugged", Network::Pod);
    let mut config = pod.container("adjusted", &["tail", "-f", "/dev/null"]);
    config.envs.push(cri::KeyValue { key: "TAKEN".into(), value: "x".into() });
    config.annotations.insert("mine".into(), "1".into());
    let id = pod.start(&config);
    let script = "echo $GIVEN,$TAKEN,$(cat /shared),$(ulimit -n),$(cat /proc/1/oom_score_adj); \
                  head -c 1 /dev/given | wc -c; echo no >/shared || echo read-only";
    let said = daemon.cri().shell(&id, script);
    assert_eq!(said, "by a plugin,,from the node,77,321\n1\nread-only\n");
    assert_eq!(shares(&daemon, &id), 333);
    // Asking them took its time, once for each thing that they may refuse.
    let told = (daemon.cri().info(&id), daemon.cri().pod_info(&pod.id));
    let asked = |info: &Value| {
        let steps = info["phases"]["steps"].as_array().unwrap();
        steps.iter().filter(|step| step["phase"] == "nri").count()
    };
    assert_eq!((asked(&told.0), asked(&told.1)), (2, 1));
    assert!(has(&told.0["runtimeSpec"]["process"]["env"], "GIVEN=by a plugin"));
    // What the kubelet asked for is what it is shown.
    let status = daemon.cri().status(&id);
    assert_eq!(status.annotations, config.annotations);
    assert!(status.mounts.is_empty());
    let run = plugin.wait("RunPodSandbox");
    assert!(run["ips"][0].as_str().unwrap().starts_with("10.90."), "{run}");
    assert!(run["netns"].as_str().unwrap().ends_with(&pod.id), "{run}");
    let seen = plugin.wait("PostStartContainer");
    assert!(has(&seen["env"], "GIVEN=by a plugin") && has(&seen["mounts"], "/shared"), "{seen}");
    assert_eq!(seen["state"], "CONTAINER_RUNNING");
    // A daemon that was started again shows the same to whoever comes.
    daemon.restart();
    plugin.wait("Closed");
    let late = Plugin::start(&daemon, &["-name", "late"]).unwrap();
    let seen = late.wait("Synchronize");
    assert!(has(&seen["pods"], &pod.id) && has(&seen["containers"], &id), "{seen}");
    assert!(has(&seen["env"], "GIVEN=by a plugin") && has(&seen["mounts"], "/shared"), "{seen}");
    assert!(has(&seen["args"], "tail"));
    daemon.cri().stop(&id, 0).unwrap();
    let events = ["CreateContainer", "PostCreateContainer", "StartContainer", "PostStartContainer"];
    assert_eq!(plugin.events(&id), events);
    pod.remove();
    assert_eq!(late.events(&id), ["StopContainer", "RemoveContainer"]);
    assert_eq!(late.events(&pod.id), ["StopPodSandbox", "RemovePodSandbox"]);
    drop((plugin, late));
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_plugins_cannot_have_fails_the_creation_and_leaves_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let pod = daemon.pod("refused", Network::Node);
    let leaks = Leaks::before(&daemon);
    let create = |name: &str| {
        let config = pod.container(name, &["true"]);
        daemon.cri().create(&pod.id, &config, &pod.config).map_err(|no| no.message().to_owned())
    };
    let elsewhere = json!({"linux": {"cgroupsPath": "/elsewhere"}}).to_string();
    let Some(plugin) = Plugin::start(&daemon, &["-adjust", &elsewhere]) else { return };
    until("the plugin", || (connected(&daemon).len() == 1).then_some(()));
    let no = create("adjusted").unwrap_err();
    assert!(no.contains("10-test") && no.contains("linux.cgroups_path"), "{no}");
    let undone = plugin.wait("RemoveContainer")["container"].as_str().unwrap().to_owned();
    assert_eq!(plugin.events(&undone), ["CreateContainer", "StopContainer", "RemoveContainer"]);
    drop(plugin);
    // Two that want the same, in the order of their digits.
    let env = json!({"env": [{"key": "A", "value": "1"}]}).to_string();
    let flags = ["-adjust", &env, "-index"];
    let second = Plugin::start(&daemon, &[flags[0], flags[1], flags[2], "20"]).unwrap();
    let first = Plugin::start(&daemon, &[flags[0], flags[1], flags[2], "10"]).unwrap();
    until("both", || (connected(&daemon) == ["10-test", "20-test"]).then_some(()));
    let no = create("adjusted").unwrap_err();
    assert!(no.contains("plugins 10-test and 20-test both set Env"), "{no}");
    assert!(has(&second.wait("CreateContainer")["env"], "A=1"));
    drop(first);
    until("one", || (connected(&daemon) == ["20-test"]).then_some(()));
    // One that judges.
    let judge = Plugin::start(&daemon, &["-reject", "-name", "judge"]).unwrap();
    until("both", || (connected(&daemon).len() == 2).then_some(()));
    let no = create("adjusted").unwrap_err();
    assert!(no.contains("10-judge") && no.contains("no variables"), "{no}");
    daemon.cri().remove(&create("plain").unwrap()).unwrap();
    drop((second, judge));
    until("nobody", || connected(&daemon).is_empty().then_some(()));
    daemon.cri().remove(&create("adjusted").unwrap()).unwrap();
    leaks.assert_same_after(&daemon);
    pod.remove();
}

#[test]
fn root_a_plugin_that_hangs_costs_one_deadline_and_is_sent_away() {
    let Some(daemon) = Daemon::start() else { return };
    let pod = daemon.pod("hangs", Network::Node);
    let Some(plugin) = Plugin::start(&daemon, &["-hold", "CreateContainer"]) else { return };
    until("the plugin", || (connected(&daemon).len() == 1).then_some(()));
    let begun = Instant::now();
    let id = pod.idle("first");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    until("its end", || connected(&daemon).is_empty().then_some(()));
    assert!(daemon.log().contains("did not answer within 2s"));
    drop(plugin);
    // One that hangs while it is told what there is.
    assert!(daemon.log().matches("a plugin is sent away").count() == 0);
    let flags = ["-hold", "Synchronize"];
    let plugin = Plugin::start(&daemon, &flags).unwrap();
    let late = pod.idle("late");
    until("its end", || daemon.log().contains("a plugin is sent away").then_some(()));
    assert!(connected(&daemon).is_empty());
    drop(plugin);
    for id in [id, late] {
        daemon.cri().remove(&id).unwrap();
    }
    pod.remove();
}

#[test]
fn root_plugins_change_limits_asked_and_unasked() {
    let Some(daemon) = Daemon::start() else { return };
    let pod = daemon.pod("limits", Network::Node);
    let (one, other) = (pod.idle("one"), pod.idle("other"));
    let change = |id: &str, shares: u64| {
        let resources = json!({"cpu": {"shares": {"value": shares}}});
        json!({"containerId": id, "linux": {"resources": resources}})
    };
    let limit = json!({"cpu": {"shares": {"value": 200}}}).to_string();
    let on_create = change(&one, 300).to_string();
    let flags = ["-limit", &limit, "-update", &on_create];
    let Some(mut plugin) = Plugin::start(&daemon, &flags) else { return };
    until("the plugin", || (connected(&daemon).len() == 1).then_some(()));
    update(&daemon, &other, 100).unwrap();
    assert_eq!(shares(&daemon, &other), 200);
    assert_eq!(plugin.wait("PostUpdateContainer")["shares"], 200);
    // Another container makes room for a new one.
    let third = pod.create(&pod.container("third", &["true"]));
    assert_eq!((shares(&daemon, &one), shares(&daemon, &other)), (300, 200));
    let done = plugin.update(&change(&third, 400));
    assert_eq!((&done["failed"], &done["error"]), (&json!(0), &Value::Null));
    assert_eq!(shares(&daemon, &third), 400);
    assert_eq!(plugin.update(&change("no-such-container", 400))["failed"], 1);
    let mut forgiven = change("no-such-container", 400);
    forgiven["ignoreFailure"] = json!(true);
    assert_eq!(plugin.update(&forgiven)["failed"], 0);
    // Its own updates are no news to it.
    assert_eq!(plugin.events(&third), ["CreateContainer", "PostCreateContainer"]);
    drop(plugin);
    pod.remove();
}

#[test]
fn root_a_container_of_a_handler_is_changed_and_shown_too() {
    for name in handlers::each() {
        let Some(daemon) = Daemon::start() else { return };
        let adjust = json!({
            "env": [{"key": "GIVEN", "value": "1"}],
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}],
        });
        let adjust = adjust.to_string();
        let Some(plugin) = Plugin::start(&daemon, &["-adjust", &adjust]) else { return };
        until("the plugin", || (connected(&daemon).len() == 1).then_some(()));
        let config = requests::pod("by-handler", Network::Node, &daemon.logs());
        let pod = Pod::run_by(&daemon, config, name);
        assert_eq!(plugin.wait("RunPodSandbox")["pod"], pod.id.as_str());
        let id = pod.idle("adjusted");
        assert_eq!(daemon.cri().shell(&id, "echo $GIVEN,$(ulimit -n)"), "1,77\n");
        assert!(has(&plugin.wait("PostStartContainer")["env"], "GIVEN=1"));
        let late = Plugin::start(&daemon, &["-name", "late"]).unwrap();
        let seen = late.wait("Synchronize");
        assert!(has(&seen["containers"], &id) && has(&seen["env"], "GIVEN=1"), "{seen}");
        pod.remove();
        let events = ["StopContainer", "RemoveContainer"];
        assert_eq!(late.events(&id), events);
    }
}
