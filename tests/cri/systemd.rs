//! The systemd driver, with the systemd of the guest that `hack/guest` boots: pods' scopes, and what happens
//! to them while systemd reloads, executes itself anew, or cannot be reached. Elsewhere these tests say that
//! they skip: they use the whole machine.

use shim_proto::runtime_v1 as cri;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wherry_tests::cri::Cri;
use wherry_tests::requests::{Network, container, pod, resources};
use wherry_tests::{images, in_guest, program, say, until};

const CGROUPS: &str = "/sys/fs/cgroup";

/// A daemon in the machine's own namespaces, by itself deciding for systemd.
struct Node {
    folder: tempfile::TempDir,
    daemon: Child,
    cri: Cri,
}

impl Node {
    fn start() -> Option<Self> {
        let Some(program) = program().filter(|_| in_guest()) else {
            say("skipped: not in the guest of hack/guest");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("logs")).unwrap();
        let cri = Cri::new(&at("wherry.sock"));
        let daemon = serve(&program, folder.path());
        let node = Self { folder, daemon, cri };
        node.answers();
        let archive = node.folder.path().join("image.tar");
        images::write(&archive, images::NAME, &[]);
        let mut import = Command::new(program);
        import.arg("--socket").arg(node.folder.path().join("wherry.sock"));
        let done = import.args(["image", "import"]).arg(archive).output().unwrap();
        assert!(done.status.success(), "{done:?}\n{}", node.log());
        Some(node)
    }

    fn answers(&self) {
        until("an answer of the daemon", || self.cri.version().ok());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn config(&self, name: &str, parent: &str) -> cri::PodSandboxConfig {
        let mut config = pod(name, Network::Node, &self.folder.path().join("logs"));
        config.linux.as_mut().unwrap().cgroup_parent = parent.into();
        // As most pods of a kubelet are: each container its own PID namespace.
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Container.into();
        config
    }

    fn run(&self, config: &cri::PodSandboxConfig) -> String {
        self.cri.run_pod(config).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    fn start_in(
        &self,
        pod: &str,
        config: &cri::PodSandboxConfig,
        of: &cri::ContainerConfig,
    ) -> String {
        let id = self.cri.create(pod, of, config).unwrap();
        self.cri.start(&id).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        id
    }

    fn idle(name: &str, config: &cri::PodSandboxConfig) -> cri::ContainerConfig {
        let mut idle = container(name, &["tail", "-f", "/dev/null"], config);
        resources(&mut idle).memory_limit_in_bytes = 64 << 20;
        idle
    }

    fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = serve(&program().unwrap(), self.folder.path());
        self.answers();
    }

    fn remove(&self, pod: &str) {
        self.cri.stop_pod(pod).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        self.cri.remove_pod(pod).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.log());
        }
        for pod in self.cri.pods().unwrap_or_default() {
            drop(self.cri.stop_pod(&pod.id));
            drop(self.cri.remove_pod(&pod.id));
        }
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

fn serve(program: &str, folder: &Path) -> Child {
    let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg("serve");
    for (flag, name) in [("--socket", "wherry.sock"), ("--root", "root"), ("--state", "state")] {
        command.arg(flag).arg(folder.join(name));
    }
    command.arg("--cni-conf-dir").arg(folder.join("cni"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn systemctl(arguments: &[&str]) -> String {
    let done = Command::new("systemctl").args(arguments).output().unwrap();
    assert!(done.status.success(), "systemctl {arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Scopes of pods that systemd knows.
fn scopes() -> Vec<String> {
    let list = systemctl(&["list-units", "--all", "--plain", "--no-legend", "cri-wherry-*.scope"]);
    list.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn folder(group: &str) -> PathBuf {
    Path::new(CGROUPS).join(group.trim_start_matches('/'))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref())
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn root_a_pod_is_a_scope_in_its_slice_and_outlives_reloads() {
    let Some(mut node) = Node::start() else { return };
    let parent = "/test.slice/test-pods.slice/test-pods-pod1_2.slice";
    let config = node.config("scoped", parent);
    let pod = node.run(&config);
    let idle = Node::idle("c", &config);
    let id = node.start_in(&pod, &config, &idle);
    let unit = format!("cri-wherry-{pod}.scope");
    let group = format!("{parent}/{unit}/{id}");
    assert_eq!(node.cri.info(&id)["cgroupsPath"].as_str().unwrap(), group);
    let process = node.cri.info(&id)["pid"].to_string();
    let check = |when: &str| {
        let own = read(format!("/proc/{process}/cgroup"));
        assert_eq!(own.trim(), format!("0::{group}"), "{when}");
        let limits = ["memory.max", "pids.max", "cgroup.controllers"];
        let [memory, pids, controllers] = limits.map(|file| read(folder(&group).join(file)));
        assert_eq!((memory.trim(), pids.trim()), ("67108864", "max"), "{when}");
        assert!(controllers.contains("memory") && controllers.contains("cpu"), "{controllers}");
        let state = systemctl(&["show", "-p", "ActiveState,Slice,Delegate,TasksMax", &unit]);
        for line in [
            "ActiveState=active",
            "Slice=test-pods-pod1_2.slice",
            "Delegate=yes",
            "TasksMax=infinity",
        ] {
            assert!(state.contains(line), "{when}: {state}");
        }
        assert_eq!(node.cri.exec(&id, &["echo", "here"], 30).unwrap().stdout, "here\n", "{when}");
    };
    check("at first");
    // Nobody of ours is charged to a pod but its first process.
    let inside = read(folder(parent).join(&unit).join("cgroup.procs"));
    assert_eq!(inside, "", "a process directly in the scope");
    let own = read(folder("wherry.slice/wherry-runtime.scope").join("cgroup.procs"));
    assert!(own.lines().count() >= 2, "zygote and monitor: {own}");
    for order in ["daemon-reload", "daemon-reexec", "daemon-reload"] {
        systemctl(&[order]);
        check(order);
    }
    // The connection that broke is made again, and pods of another life of the daemon go too.
    let second = node.config("second", "");
    let pod_two = node.run(&second);
    assert!(
        folder("wherry.slice/wherry-pods.slice")
            .join(format!("cri-wherry-{pod_two}.scope"))
            .exists()
    );
    node.restart();
    assert_eq!(scopes().len(), 2);
    node.remove(&pod);
    node.remove(&pod_two);
    assert_eq!(scopes(), Vec::<String>::new());
    assert!(!folder(parent).join(&unit).exists());
}

#[test]
fn root_a_scope_holds_between_containers_and_counts_kills_by_memory() {
    let Some(node) = Node::start() else { return };
    let config = node.config("kills", "/test.slice");
    let pod = node.run(&config);
    for (name, group) in [("one", "0"), ("whole", "1")] {
        let mut eater = container(name, &["sh", "-c", "sleep 1000 & tail /dev/zero"], &config);
        let limits = resources(&mut eater);
        (limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes) = (24 << 20, 24 << 20);
        limits.unified.insert("memory.oom.group".into(), group.into());
        let ended = node.cri.ended(&node.start_in(&pod, &config, &eater));
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"), "{name}");
    }
    // Nothing ran for a moment; the pod is there, and the next container finds its group.
    let idle = Node::idle("after", &config);
    let id = node.start_in(&pod, &config, &idle);
    assert_eq!(node.cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    node.remove(&pod);
    assert_eq!(scopes(), Vec::<String>::new());
}

#[test]
fn root_without_a_bus_pods_end_and_none_begins() {
    let Some(node) = Node::start() else { return };
    let config = node.config("before", "/test.slice");
    let pod = node.run(&config);
    let idle = Node::idle("c", &config);
    let id = node.start_in(&pod, &config, &idle);
    systemctl(&["stop", "dbus.socket", "dbus.service"]);
    let begun = Instant::now();
    let refused = node.cri.run_pod(&node.config("without", "/test.slice")).unwrap_err();
    let took = begun.elapsed();
    // Containers need no bus; a pod's end does without.
    let again = node.start_in(&pod, &config, &Node::idle("more", &config));
    let ran = node.cri.exec(&id, &["echo", "here"], 30);
    node.cri.stop(&again, 0).unwrap();
    node.cri.stop_pod(&pod).unwrap();
    let left = folder("test.slice").join(format!("cri-wherry-{pod}.scope")).exists();
    systemctl(&["start", "dbus.socket"]);
    assert!(refused.message().contains("systemd"), "{refused}");
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert_eq!(ran.unwrap().stdout, "here\n");
    assert!(!left, "{}", node.log());
    let next = node.run(&node.config("without", "/test.slice"));
    node.remove(&next);
    until("a systemd that forgot", || scopes().is_empty().then_some(()));
}

#[test]
fn root_the_driver_is_told_and_a_parent_of_the_other_one_refused() {
    let Some(node) = Node::start() else { return };
    let told =
        node.cri.ask(async |mut client| client.runtime_config(cri::RuntimeConfigRequest {}).await);
    assert_eq!(
        told.unwrap().into_inner().linux.unwrap().cgroup_driver(),
        cri::CgroupDriver::Systemd
    );
    let refused = node.cri.run_pod(&node.config("other", "/kubepods/pod1")).unwrap_err();
    assert!(refused.message().contains("cgroup.driver"), "{refused}");
}
