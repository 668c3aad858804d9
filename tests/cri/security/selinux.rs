//! SELinux: contexts of processes and files are those that were asked for, or the pod's own. What a kernel without
//! it answers is tested there; the rest where a policy is loaded, which no usual test machine has:
//! `WHERRY_GUEST_LSM=selinux hack/guest --tests 'test(/security::selinux/)'`.

use super::{idle, refused};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};
use wherry_tests::{handlers, say};

const PROCESS: &str = "system_u:system_r:container_t:";
const FILES: &str = "system_u:object_r:container_file_t:";

fn is_on() -> bool {
    std::fs::exists("/sys/fs/selinux/enforce").unwrap()
}

/// A daemon where SELinux is on.
fn labelling() -> Option<Daemon> {
    if is_on() {
        return Daemon::start();
    }
    say(
        "skipped: this kernel has no SELinux; WHERRY_GUEST_LSM=selinux hack/guest --tests runs it in one that has",
    );
    None
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn options(user: &str, role: &str, kind: &str, level: &str) -> Option<cri::SeLinuxOption> {
    let own = str::to_owned;
    Some(cri::SeLinuxOption {
        user: own(user),
        role: own(role),
        r#type: own(kind),
        level: own(level),
    })
}

fn only(level: &str) -> Option<cri::SeLinuxOption> {
    options("", "", "", level)
}

/// A pod that may hold privileged containers.
fn powerful<'d>(daemon: &'d Daemon, name: &str, asked: Option<cri::SeLinuxOption>) -> Pod<'d> {
    let mut config = requests::pod(name, Network::Node, &daemon.logs());
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.privileged = true;
    context.selinux_options = asked;
    Pod::run(daemon, config)
}

fn start(pod: &Pod<'_>, name: &str, asked: Option<cri::SeLinuxOption>, privileged: bool) -> String {
    let mut config = idle(pod, name);
    security(&mut config).selinux_options = asked;
    security(&mut config).privileged = privileged;
    pod.start(&config)
}

fn text(daemon: &Daemon, path: impl AsRef<std::path::Path>) -> String {
    let found = std::fs::read_to_string(daemon.space().path(path)).unwrap();
    found.trim_end_matches(['\0', '\n']).to_owned()
}

/// The context of a container's first process and of a command in it, which must be the same.
fn process(daemon: &Daemon, id: &str) -> String {
    let first = text(daemon, format!("/proc/{}/attr/current", daemon.cri().info(id)["pid"]));
    let command = daemon.cri().exec(id, &["cat", "/proc/self/attr/current"], 10).unwrap();
    assert_eq!(command.stdout.trim_end_matches(['\0', '\n']), first);
    first
}

/// The context that every file of a mount of a container has.
fn mounted(daemon: &Daemon, id: &str, point: &str) -> String {
    let mounts = daemon.cri().shell(id, "cat /proc/mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(point)).unwrap();
    let options = line.split(' ').nth(3).unwrap();
    // A level has commas of its own, and is quoted then.
    let context = options.split_once(",context=").unwrap_or_else(|| panic!("{line}")).1;
    let quoted = context.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    quoted.map_or_else(|| context.split(',').next().unwrap(), |(context, _)| context).to_owned()
}

/// The context of a file by its attribute.
fn of_file(daemon: &Daemon, path: impl AsRef<std::path::Path>) -> String {
    let path = daemon.space().path(path);
    let done = std::process::Command::new("stat").args(["-c", "%C"]).arg(path).output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn root_without_selinux_what_is_said_of_it_is_ignored() {
    if is_on() {
        say("skipped: this kernel has SELinux");
        return;
    }
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "without", only("nonsense"));
    let id = start(&pod, "c", only("wrong"), false);
    let spec = &daemon.cri().info(&id)["runtimeSpec"];
    assert!(
        spec["process"].get("selinuxLabel").is_none() && spec["linux"].get("mountLabel").is_none()
    );
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pod_has_categories_of_its_own_and_its_containers_have_them() {
    let Some(daemon) = labelling() else { return };
    let leaks = Leaks::before(&daemon);
    let pods = ["one", "other"].map(|name| powerful(&daemon, name, None));
    let labels = pods.each_ref().map(|pod| {
        let (first, second) = (start(pod, "a", None, false), start(pod, "b", None, false));
        let level = process(&daemon, &first);
        let level = level.strip_prefix(PROCESS).unwrap_or_else(|| panic!("{level}")).to_owned();
        assert!(level.starts_with("s0:c") && level.contains(",c"), "{level}");
        assert_eq!(process(&daemon, &second), format!("{PROCESS}{level}"));
        for point in ["/", "/dev", "/dev/pts", "/dev/shm"] {
            assert_eq!(mounted(&daemon, &second, point), format!("{FILES}{level}"), "{point}");
        }
        let pid = &daemon.cri().info(&second)["pid"];
        let queues = of_file(&daemon, format!("/proc/{pid}/root/dev/mqueue"));
        assert_eq!(queues, format!("{FILES}{level}"));
        let hosts = daemon.state().join("pods").join(&pod.id).join("files/hosts");
        assert_eq!(of_file(&daemon, hosts), format!("{FILES}{level}"));
        let spec = &daemon.cri().info(&first)["runtimeSpec"];
        assert_eq!(spec["process"]["selinuxLabel"], format!("{PROCESS}{level}"));
        assert_eq!(spec["linux"]["mountLabel"], format!("{FILES}{level}"));
        let power = start(pod, "power", None, true);
        assert_eq!(process(&daemon, &power), "system_u:system_r:spc_t:s0");
        assert_eq!(mounted(&daemon, &power, "/"), format!("{FILES}{level}"));
        level
    });
    assert_ne!(labels[0], labels[1]);
    pods.iter().for_each(Pod::remove);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_parts_of_a_context_are_those_that_were_asked_for() {
    let Some(daemon) = labelling() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "parts", only("s0:c7,c8"));
    assert_eq!(process(&daemon, &start(&pod, "pods", None, false)), format!("{PROCESS}s0:c7,c8"));
    let own = start(&pod, "level", only("s0:c4,c5"), false);
    assert_eq!(process(&daemon, &own), format!("{PROCESS}s0:c4,c5"));
    assert_eq!(mounted(&daemon, &own, "/"), format!("{FILES}s0:c4,c5"));
    let all = options("system_u", "system_r", "spc_t", "s0:c1,c2");
    assert_eq!(
        process(&daemon, &start(&pod, "all", all, false)),
        "system_u:system_r:spc_t:s0:c1,c2"
    );
    for bad in [
        only("wrong"),
        only("s0:c5,c1x"),
        options("", "", "wherry_none_t", ""),
        options("nobody_u", "", "", ""),
    ] {
        for privileged in [false, true] {
            let mut config = idle(&pod, "bad");
            security(&mut config).selinux_options = bad.clone();
            security(&mut config).privileged = privileged;
            let said = refused(&daemon, &pod, &config);
            assert!(said.contains("selinux_options"), "{said}");
        }
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_volume_is_relabelled_if_that_is_asked_for() {
    let Some(daemon) = labelling() else { return };
    let volumes = ["asked", "left"].map(|name| daemon.beside(name));
    for volume in &volumes {
        std::fs::create_dir_all(volume.join("a")).unwrap();
        std::fs::write(volume.join("a/file"), "x").unwrap();
    }
    let before = of_file(&daemon, volumes[1].join("a/file"));
    let leaks = Leaks::before(&daemon);
    let pod = powerful(&daemon, "relabel", only("s0:c7,c8"));
    let mount = |volume: &std::path::Path, relabel| cri::Mount {
        container_path: volume.to_string_lossy().into_owned(),
        host_path: volume.to_string_lossy().into_owned(),
        selinux_relabel: relabel,
        ..Default::default()
    };
    let mut config = idle(&pod, "c");
    let new = daemon.beside("new");
    config.mounts = vec![mount(&volumes[0], true), mount(&volumes[1], false), mount(&new, true)];
    let id = pod.start(&config);
    let context = format!("{FILES}s0:c7,c8");
    assert_eq!(of_file(&daemon, &new), context);
    assert_eq!(of_file(&daemon, volumes[0].join("a/file")), context);
    assert_eq!(of_file(&daemon, &volumes[0]), context);
    assert_eq!(of_file(&daemon, volumes[1].join("a/file")), before);
    assert!(daemon.cri().status(&id).mounts[0].selinux_relabel);
    let mut config = idle(&pod, "usr");
    config.mounts = vec![cri::Mount {
        container_path: "/usr".into(),
        host_path: "/usr".into(),
        selinux_relabel: true,
        ..Default::default()
    }];
    assert!(refused(&daemon, &pod, &config).contains("selinux_relabel"));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_handlers_program_is_told_the_contexts() {
    let Some(daemon) = labelling() else { return };
    for name in handlers::each() {
        let leaks = Leaks::before(&daemon);
        let mut config = requests::pod(&format!("by-{name}"), Network::Node, &daemon.logs());
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.selinux_options = only("s0:c7,c8");
        let pod = Pod::run_by(&daemon, config, name);
        let mut config = idle(&pod, "c");
        security(&mut config).seccomp = None;
        let id = pod.start(&config);
        assert_eq!(process(&daemon, &id), format!("{PROCESS}s0:c7,c8"), "{name}");
        assert_eq!(mounted(&daemon, &id, "/"), format!("{FILES}s0:c7,c8"), "{name}");
        assert_eq!(mounted(&daemon, &id, "/dev"), format!("{FILES}s0:c7,c8"), "{name}");
        pod.remove();
        leaks.assert_same_after(&daemon);
    }
}
