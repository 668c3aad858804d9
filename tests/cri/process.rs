//! What a container's process is: its user, its rights, its files, its view of the system.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{Network, security};

/// The capabilities of a container that asks for none: Docker's, as every runtime has them.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn number(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// A line of `/proc/1/status` of a container.
fn status_of(daemon: &Daemon, id: &str, key: &str) -> String {
    let text = daemon.cri().shell(id, &format!("grep ^{key}: /proc/1/status"));
    text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn idle(pod: &Pod<'_>, name: &str) -> cri::ContainerConfig {
    pod.container(name, &["tail", "-f", "/dev/null"])
}

#[test]
fn root_users_and_groups_are_the_images_and_the_requests() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("users", Network::Node);
    let id = |config: &cri::ContainerConfig| cri.shell(&pod.start(config), "id -u; id -g; id -G");

    assert_eq!(id(&idle(&pod, "root")), "0\n0\n0\n");
    let mut named = idle(&pod, "named");
    security(&mut named).run_as_username = "user".into();
    assert_eq!(id(&named), "1000\n1000\n1000 2000\n");
    let mut numbers = idle(&pod, "numbers");
    security(&mut numbers).run_as_user = Some(number(77));
    security(&mut numbers).run_as_group = Some(number(88));
    security(&mut numbers).supplemental_groups = vec![5, 6];
    assert_eq!(id(&numbers), "77\n88\n88 5 6\n");

    let mut unknown = idle(&pod, "unknown");
    security(&mut unknown).run_as_username = "nobody-of-here".into();
    let refused = cri.create(&pod.id, &unknown, &pod.config).unwrap_err();
    assert!(refused.message().contains("nobody-of-here"), "{refused:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_rights_are_few_unless_they_are_asked_for() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("rights", Network::Node);
    let usual = pod.start(&idle(&pod, "usual"));
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status_of(&daemon, &usual, set), DEFAULT_CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status_of(&daemon, &usual, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_of(&daemon, &usual, "Seccomp"), "2");
    assert_eq!(status_of(&daemon, &usual, "NoNewPrivs"), "0");
    // The filter is at work, not only installed: this call it refuses whatever the rights.
    let refused = daemon.cri().exec(&usual, &["unshare", "-U", "true"], 10).unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");

    let mut none = idle(&pod, "none");
    let drop_all = cri::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut none).capabilities = Some(drop_all);
    security(&mut none).no_new_privs = true;
    let none = pod.start(&none);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status_of(&daemon, &none, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_of(&daemon, &none, "NoNewPrivs"), "1");

    let mut open = idle(&pod, "open");
    let unconfined = cri::security_profile::ProfileType::Unconfined.into();
    let profile = cri::SecurityProfile { profile_type: unconfined, ..Default::default() };
    security(&mut open).seccomp = Some(profile);
    assert_eq!(status_of(&daemon, &pod.start(&open), "Seccomp"), "0");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_read_only_root_is_read_only() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("root", Network::Node);
    let usual = pod.idle("usual");
    cri.shell(&usual, "echo x > /file && rm -r /home && ls / | grep -q file");
    let mut config = idle(&pod, "readonly");
    security(&mut config).readonly_rootfs = true;
    let readonly = pod.start(&config);
    for path in ["/file", "/etc/passwd", "/home/file"] {
        let refused = cri.exec(&readonly, &["sh", "-c", &format!("echo x >> {path}")], 10).unwrap();
        assert!(refused.stderr.contains("Read-only file system"), "{path}: {refused:?}");
    }
    // What is not the image's stays usable, and containers do not see each other's changes.
    cri.shell(&readonly, "echo x > /dev/shm/file && test -d /home && ! test -e /file");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_process_has_nothing_that_it_was_not_given() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("given", Network::Node);
    let mut config = idle(&pod, "c");
    config.envs = vec![cri::KeyValue { key: "ASKED".into(), value: b"for".to_vec() }];
    let id = pod.start(&config);
    // 0, 1 and 2, and tail's own.
    assert_eq!(cri.shell(&id, "ls /proc/1/fd"), "0\n1\n2\n3\n");
    assert_eq!(cri.shell(&id, "readlink /proc/1/fd/3"), "/dev/null\n");
    assert_eq!(cri.shell(&id, "readlink /proc/1/cwd"), "/\n");
    let variables = cri.shell(&id, "tr '\\0' '\\n' < /proc/1/environ | sort | cut -d= -f1");
    assert_eq!(variables, "ASKED\nHOME\nHOSTNAME\nIMAGE\nPATH\n");
    // Its own process numbers, and nobody else's processes.
    assert_eq!(cri.shell(&id, "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l"), "tail\n4\n");
    // The mounts of the host are not there: nothing but the root is of a kind that holds data.
    let points = cri.shell(&id, "cut -d' ' -f2 /proc/1/mounts");
    let own = |point: &str| {
        ["/proc", "/sys", "/dev", "/etc/"].iter().any(|below| point.starts_with(below))
            || point == "/"
    };
    assert!(points.lines().all(own), "{points}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_hidden_paths_are_hidden() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("hidden", Network::Node);
    let mut config = idle(&pod, "c");
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    security(&mut config).masked_paths =
        paths(&["/proc/kcore", "/proc/scsi", "/etc/group", "/none"]);
    security(&mut config).readonly_paths = paths(&["/proc/sys", "/home"]);
    let id = pod.start(&config);
    assert_eq!(cri.shell(&id, "cat /proc/kcore /etc/group; ls /proc/scsi 2>/dev/null || true"), "");
    for path in ["/proc/sys/kernel/hostname", "/home/file"] {
        let refused = cri.exec(&id, &["sh", "-c", &format!("echo x > {path}")], 10).unwrap();
        assert!(refused.stderr.contains("Read-only file system"), "{path}: {refused:?}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_mounts_are_as_they_were_asked_for() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "of the host\n").unwrap();
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("mounts", Network::Node);
    let mut config = idle(&pod, "c");
    let mount = |path: &str, readonly| cri::Mount {
        container_path: path.into(),
        host_path: data.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    };
    config.mounts = vec![mount("/data", false), mount("/deep/er/data", true)];
    let id = pod.start(&config);
    assert_eq!(cri.shell(&id, "cat /data/file; echo new > /data/new"), "of the host\n");
    assert_eq!(std::fs::read_to_string(data.join("new")).unwrap(), "new\n");
    let refused = cri.exec(&id, &["sh", "-c", "echo x > /deep/er/data/x"], 10).unwrap();
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    let shown = cri.status(&id).mounts;
    let shown: Vec<_> = shown.iter().map(|m| (m.container_path.as_str(), m.readonly)).collect();
    assert_eq!(shown, [("/data", false), ("/deep/er/data", true)]);
    pod.remove();
    // Taking a container away takes nothing of the host's.
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "of the host\n");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_containers_of_a_pod_may_share_their_processes() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = wherry_tests::requests::pod("shared", Network::Node, &daemon.logs());
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let pod = Pod::run(&daemon, config);
    let first = pod.idle("first");
    let second = pod.run_in("second", &["sh", "-c", "sleep 1000"]);
    let names = cri.shell(&first, "cat /proc/[0-9]*/comm");
    assert!(names.contains("tail") && names.contains("sleep"), "{names}");
    // The end of one is not the end of the other.
    cri.stop(&second, 0).unwrap();
    let names = cri.shell(&first, "cat /proc/[0-9]*/comm");
    assert!(names.contains("tail") && !names.contains("sleep"), "{names}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_container_finds_its_writable_layer_empty() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("layer", Network::Pod);
    let id = pod.idle("c");
    let upper = daemon.root().join("writable").join(&id).join("upper");
    let written = || daemon.space().shell(&format!("ls -A {}", upper.display()));
    // The image has no /proc, /sys, /dev nor /etc/hosts: they are mounted on nobody's folders.
    assert_eq!(written(), "");
    let said = daemon.cri().shell(&id, "cat /etc/hostname; ls /proc/self/status; echo x >/new");
    assert_eq!(said, "layer\n/proc/self/status\n");
    assert_eq!(written(), "new\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}
