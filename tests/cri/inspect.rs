//! What verbose statuses tell beyond the protocol: the OCI spec, the plan, groups, the network's result, how
//! long each step took. And what the runtime says of itself.

use serde_json::Value;
use shim_proto::runtime_v1 as cri;
use std::collections::BTreeSet;
use tonic::Code;
use wherry_tests::cri::Runtime;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::images;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, resources};

/// The names of the steps; each took some time, none more than the whole.
pub(super) fn steps(phases: &Value) -> BTreeSet<String> {
    let whole = phases["wholeMs"].as_f64().unwrap();
    let steps = phases["steps"].as_array().unwrap();
    let ends = steps.iter().map(|step| {
        let (after, took) = (step["afterMs"].as_f64().unwrap(), step["tookMs"].as_f64().unwrap());
        assert!(after >= 0.0 && took >= 0.0, "{step}");
        after + took
    });
    let last = ends.fold(0.0, f64::max);
    assert!(whole > 0.0 && (last - whole).abs() < 0.1, "{last} of {whole}: {phases}");
    steps.iter().map(|step| step["phase"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn has(found: &BTreeSet<String>, wanted: &[&str]) {
    for name in wanted {
        assert!(found.contains(*name), "{name} is not in {found:?}");
    }
}

#[test]
fn root_a_verbose_status_tells_what_a_container_is_made_of() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("verbose", Network::Pod);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let id = pod.start(&config);
    let check = |limit: i64| {
        let info = cri.info(&id);
        let pid = info["pid"].as_i64().unwrap();
        let name = daemon.space().shell(&format!("cat /proc/{pid}/comm"));
        assert_eq!(name.trim(), "tail");
        assert_eq!(info["sandboxID"], pod.id.as_str());
        assert_eq!(info["config"]["command"][0], "tail");
        let spec = &info["runtimeSpec"];
        assert_eq!(spec["process"]["args"], serde_json::json!(["tail", "-f", "/dev/null"]));
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], limit);
        assert_eq!(spec["linux"]["cgroupsPath"], info["cgroupsPath"]);
        let points: BTreeSet<&str> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert!(["/proc", "/dev", "/sys"].iter().all(|point| points.contains(point)), "{points:?}");
        let plan = info["plan"]["mounts"].as_array().unwrap();
        assert!(plan.iter().any(|step| step == "mount proc at /proc"), "{plan:?}");
        let groups = info["cgroups"].as_array().unwrap();
        let inside = |group: &Value| daemon.space().path(group.as_str().unwrap()).exists();
        assert!(!groups.is_empty() && groups.iter().all(inside), "{groups:?}");
        let found = steps(&info["phases"]);
        has(&found, &["wait", "image", "root", "plan", "record", "log", "cgroup", "sources"]);
        has(&found, &["handover", "clone", "mounts", "process", "exec"]);
    };
    check(64 << 20);
    let limits =
        cri::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
    let container_id = id.clone();
    let call = |mut client: Runtime| async move {
        let linux = Some(limits);
        let request =
            cri::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
        client.update_container_resources(request).await
    };
    cri.ask(call).unwrap();
    // Also of an image that was removed, and after a restart.
    daemon.restart();
    cri.remove_image(images::NAME).unwrap();
    check(96 << 20);
    pod.remove();
    daemon.import(images::NAME, &["IMAGE=test"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_verbose_status_tells_what_a_pod_is_made_of() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("verbose", Network::Pod);
    let id = pod.idle("c");
    let status = cri.pod_status(&pod.id).unwrap().status.unwrap();
    let address = status.network.unwrap().ip;
    let info = cri.pod_info(&pod.id);
    let ips = info["cniResult"]["ips"].as_array().unwrap();
    assert!(ips[0]["address"].as_str().unwrap().starts_with(&address), "{ips:?}");
    let own = |kind: &str| cri.shell(&id, &format!("readlink /proc/self/ns/{kind}"));
    let spec = &info["runtimeSpec"]["linux"]["namespaces"];
    for (kind, name) in [("network", "net"), ("uts", "uts"), ("ipc", "ipc")] {
        let path = spec.as_array().unwrap().iter().find(|one| one["type"] == kind);
        let path = path.unwrap()["path"].as_str().unwrap();
        let inside = format!("nsenter --{name}={path} readlink /proc/self/ns/{name}");
        assert_eq!(daemon.space().shell(&inside), own(name), "{kind}");
    }
    let pid = info["pid"].as_i64().unwrap();
    let network = daemon.space().shell(&format!("readlink /proc/{pid}/ns/net"));
    assert_eq!(network, own("net"));
    assert_eq!(info["config"]["metadata"]["uid"], "uid-of-verbose");
    let found = steps(&info["phases"]);
    has(&found, &["wait", "record", "namespace", "network_wait", "plugin bridge"]);
    has(&found, &["fork", "setup", "files"]);
    // The command line shows the same.
    let shown = daemon.wherry(&["inspect", &pod.id]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown[0]["phases"], info["phases"]);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_runtime_says_what_it_is_and_what_it_cannot() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let call = |mut client: Runtime| async move {
        client.status(cri::StatusRequest { verbose: true }).await
    };
    let status = cri.ask(call).unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    let ready: Vec<_> = conditions.iter().map(|one| (one.r#type.as_str(), one.status)).collect();
    assert_eq!(ready, [("RuntimeReady", true), ("NetworkReady", true)]);
    let handlers: Vec<_> = status.runtime_handlers.iter().map(|one| one.name.as_str()).collect();
    assert!(handlers.contains(&"") && handlers.contains(&"wherry"), "{handlers:?}");
    let features = status.runtime_handlers[0].features.unwrap();
    assert!(features.recursive_read_only_mounts);
    assert!(status.features.unwrap().supplemental_groups_policy);
    let config: Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["stateDir"], daemon.state().to_str().unwrap());
    assert_eq!(config["lastCNILoadStatus"], "OK");
    // Said twice, the driver is the same; and nothing is said that was not asked for.
    let driver = cri.ask(|mut client: Runtime| async move {
        client.runtime_config(cri::RuntimeConfigRequest {}).await
    });
    let driver = driver.unwrap().into_inner().linux.unwrap().cgroup_driver();
    assert_eq!(config["cgroupDriver"], driver.as_str_name().to_lowercase().as_str());
    assert!(cri.runtime_status().unwrap().info.is_empty());

    let pod = daemon.pod("frozen", Network::Node);
    let id = pod.idle("c");
    let (container_id, pod_sandbox_id) = (id.clone(), pod.id.clone());
    let refusals = [
        cri.ask(|mut client: Runtime| async move {
            let request = cri::CheckpointContainerRequest { container_id, ..Default::default() };
            client.checkpoint_container(request).await.map(drop)
        }),
        cri.ask(|mut client: Runtime| async move {
            let request = cri::CheckpointPodRequest { pod_sandbox_id, ..Default::default() };
            client.checkpoint_pod(request).await.map(drop)
        }),
        cri.ask(|mut client: Runtime| async move {
            client.restore_pod(cri::RestorePodRequest::default()).await.map(drop)
        }),
    ];
    for refusal in refusals.map(Result::unwrap_err) {
        assert_eq!(refusal.code(), Code::Unimplemented, "{refusal:?}");
        assert!(refusal.message().contains("not built"), "{refusal:?}");
    }
    assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_node_without_a_network_says_why() {
    let Some(daemon) = Daemon::with(&Setup { network: false, ..Setup::default() }) else { return };
    let call = |mut client: Runtime| async move {
        client.status(cri::StatusRequest { verbose: true }).await
    };
    let status = daemon.cri().ask(call).unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    assert!(conditions[0].status && conditions[0].r#type == "RuntimeReady", "{conditions:?}");
    let network = &conditions[1];
    assert_eq!((network.r#type.as_str(), network.status), ("NetworkReady", false));
    assert_eq!(network.reason, "NetworkPluginNotReady");
    assert!(network.message.contains("no CNI configuration"), "{network:?}");
    let config: Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["lastCNILoadStatus"], network.message.as_str());
}
