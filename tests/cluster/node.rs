//! What a kubelet does with a node's runtime besides pods: it counts what they use, fetches images with their
//! secrets, and takes back the disk when it is short.

use std::process::{Child, Command, Stdio};
use wherry_tests::cluster::Cluster;
use wherry_tests::until;

#[test]
fn root_what_pods_use_is_counted() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let work = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do :; done";
    cluster.kubectl(&["run", "busy", "--image=busybox", "--", "sh", "-c", work]);
    cluster.wait("pod/busy", "condition=Ready");
    let summary = || {
        let raw = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
        let summary: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let pods = summary["pods"].as_array().unwrap().clone();
        pods.into_iter().find(|pod| pod["podRef"]["name"] == "busy")
    };
    until("a pod that uses a processor and memory", || {
        let pod = summary()?;
        let number = |path: &str| pod.pointer(path)?.as_u64();
        let cpu = number("/containers/0/cpu/usageNanoCores")?;
        let memory = number("/containers/0/memory/workingSetBytes")?;
        let pod_memory = number("/memory/workingSetBytes")?;
        number("/containers/0/rootfs/usedBytes")?;
        (cpu > 50_000_000 && memory > 19_000_000 && pod_memory > 19_000_000).then_some(())
    });
    let metrics = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics/resource"]);
    assert!(metrics.contains("container_cpu_usage_seconds_total{container=\"busy\""), "{metrics}");

    // Interfaces and processes of a pod a kubelet finds by the group of its sandbox's container, which we
    // have none of; it asks us for all of it with this gate.
    let config = cluster.home().join("node-1/kubelet.yaml");
    let gate = "featureGates: {PodAndContainerStatsFromCRI: true}\n";
    let text = std::fs::read_to_string(&config).unwrap() + gate;
    std::fs::write(&config, text).unwrap();
    cluster.hack(&["restart", "node-1/kubelet"]);
    until("interfaces and processes", || {
        let raw = ["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"];
        cluster.command(&raw).output().unwrap().status.success().then_some(())?;
        let pod = summary()?;
        let number = |path: &str| pod.pointer(path)?.as_u64();
        number("/network/rxBytes")?;
        (number("/process_stats/process_count")? >= 1).then_some(())
    });
}

/// A registry that asks who is there; it ends with the test.
struct Private(Child);

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Private {
    /// At 10.80.0.1:5001, for `test` with the password `hunter2`, with an image.
    fn start(cluster: &Cluster) -> Self {
        let folder = cluster.home().join("private");
        std::fs::create_dir(&folder).unwrap();
        // bcrypt of the password.
        let user = "test:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";
        std::fs::write(folder.join("users"), user).unwrap();
        let config = serde_json::json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": folder.join("images")}},
            "http": {"addr": "10.80.0.1:5001"},
            "auth": {"htpasswd": {"realm": "test", "path": folder.join("users")}},
        });
        std::fs::write(folder.join("config.yaml"), config.to_string()).unwrap();
        let mut serve = cluster.command_in_network(&["docker-registry", "serve"]);
        serve.arg(folder.join("config.yaml")).stdout(Stdio::null()).stderr(Stdio::null());
        let private = Self(serve.spawn().unwrap());
        until("the private registry", || {
            let from = "docker://10.80.0.1:5000/library/busybox:latest";
            let to = "docker://10.80.0.1:5001/secret/busybox:1";
            let mut copy: Command = cluster.command_in_network(&["skopeo", "copy", "-q"]);
            copy.args(["--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
            copy.args(["--dest-creds=test:hunter2", from, to]);
            copy.output().unwrap().status.success().then_some(())
        });
        let hosts = cluster.home().join("node-1/certs.d/10.80.0.1:5001");
        std::fs::create_dir_all(&hosts).unwrap();
        std::fs::write(hosts.join("hosts.toml"), "server = \"http://10.80.0.1:5001\"\n").unwrap();
        private
    }
}

#[test]
fn root_images_are_fetched_with_a_pods_secrets() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let _private = Private::start(&cluster);
    let run = |name: &str, secret: &str| {
        let place = format!(r#"{{"spec":{{"imagePullSecrets":[{{"name":"{secret}"}}]}}}}"#);
        let image = "--image=10.80.0.1:5001/secret/busybox:1";
        cluster.kubectl(&["run", name, image, "--overrides", &place, "--", "sleep", "3600"]);
    };
    let secret = |name: &str, password: &str| {
        cluster.kubectl(&[
            "create",
            "secret",
            "docker-registry",
            name,
            "--docker-server=10.80.0.1:5001",
            "--docker-username=test",
            &format!("--docker-password={password}"),
        ]);
    };
    secret("right", "hunter2");
    secret("wrong", "*******");
    run("none", "nobody");
    run("wrong", "wrong");
    run("right", "right");
    cluster.wait("pod/right", "condition=Ready");
    for name in ["none", "wrong"] {
        let reason = ".status.containerStatuses[0].state.waiting.reason";
        until("a refusal", || {
            cluster.field(&format!("pod/{name}"), reason).contains("ImagePull").then_some(())
        });
        let events = cluster.kubectl(&["describe", "pod", name]);
        assert!(events.contains("the registry 10.80.0.1:5001 refuses"), "{events}");
    }
}

#[test]
fn root_a_node_that_is_short_of_disk_takes_it_back() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.kubectl(&["run", "victim", "--image=busybox", "--", "sleep", "3600"]);
    cluster.wait("pod/victim", "condition=Ready");
    cluster.kubectl(&[
        "run",
        "over",
        "--image=httpd",
        "--restart=Never",
        "--command",
        "--",
        "true",
    ]);
    cluster.wait("pod/over", "jsonpath={.status.phase}=Succeeded");
    cluster.kubectl(&["delete", "pod", "over"]);
    let images = || cluster.on_node(1, "$(readlink /proc/$(pgrep -o -x wherry)/exe) images");
    assert!(images().contains("httpd"));
    let config = cluster.home().join("node-1/kubelet.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let short = "evictionHard: {nodefs.available: \"99%\", imagefs.available: \"99%\"}\n\
                 imageMinimumGCAge: 1s";
    let text = text.replace("evictionHard: {memory.available: 50Mi}", short);
    assert!(text.contains(short));
    std::fs::write(&config, text).unwrap();
    cluster.hack(&["restart", "node-1/kubelet"]);
    until("pressure", || {
        let pressure = ".status.conditions[?(@.type==\"DiskPressure\")].status";
        (cluster.field("node/node-1", pressure) == "True").then_some(())
    });
    until("an eviction", || {
        (cluster.field("pod/victim", ".status.reason") == "Evicted").then_some(())
    });
    until("images that nobody uses go", || (!images().contains("httpd")).then_some(()));
}
