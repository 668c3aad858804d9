//! Devices of vendors (CDI): what their files say is in the container, under the names that a request or an
//! annotation gives; what cannot be had is refused when the container is made.

use super::{idle, refused};
use shim_proto::runtime_v1 as cri;
use std::fs;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, security};

/// Writes a file of devices of the kind `tests.dev/kind`, one device `name` with these edits.
fn file(daemon: &Daemon, name: &str, edits: &serde_json::Value) {
    let folder = daemon.beside("cdi");
    fs::create_dir_all(&folder).unwrap();
    let device = serde_json::json!({"name": name, "containerEdits": edits});
    let text = serde_json::json!({
        "cdiVersion": "0.6.0", "kind": format!("tests.dev/{name}"), "devices": [device],
        "containerEdits": {"env": [format!("WITH_{}=1", name.to_uppercase())]},
    });
    fs::write(folder.join(format!("{name}.json")), text.to_string()).unwrap();
}

fn ask(config: &mut cri::ContainerConfig, names: &[&str]) {
    let name = |name: &&str| cri::CdiDevice { name: format!("tests.dev/{name}={name}") };
    config.cdi_devices = names.iter().map(name).collect();
}

/// A program of the node; a shell script.
fn program(daemon: &Daemon, name: &str, script: &str) -> String {
    let path = daemon.beside(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn root_a_vendors_device_brings_everything_that_its_file_says() {
    let Some(daemon) = Daemon::start() else { return };
    let library = daemon.beside("library.so");
    fs::write(&library, "of the vendor\n").unwrap();
    let node =
        serde_json::json!({"path": "/dev/deep/gpu0", "hostPath": "/dev/zero", "permissions": "r"});
    let owned = serde_json::json!({"path": "/dev/owned", "type": "c", "major": 1, "minor": 5,
        "fileMode": 0o640, "uid": 3, "gid": 4});
    let mount = serde_json::json!({"hostPath": library, "containerPath": "/usr/lib/vendor/library.so",
        "options": ["ro", "nosuid", "nodev", "bind"]});
    let scratch =
        serde_json::json!({"containerPath": "/scratch", "type": "tmpfs", "options": ["size=64k"]});
    file(
        &daemon,
        "gpu",
        &serde_json::json!({"deviceNodes": [node, owned], "mounts": [mount, scratch],
        "env": ["VISIBLE=0", "ASKED=vendor"], "additionalGids": [0, 4321]}),
    );
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("gpu", Network::Node);
    let mut config = idle(&pod, "c");
    ask(&mut config, &["gpu"]);
    // Named again by the older way: still one device.
    config.annotations.insert("cdi.k8s.io/tests".into(), "tests.dev/gpu=gpu".into());
    config.envs = vec![cri::KeyValue { key: "ASKED".into(), value: b"request".to_vec() }];
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 77 });
    let id = pod.start(&config);
    assert_eq!(
        cri.shell(&id, "stat -c '%u:%g %a %t:%T' /dev/deep/gpu0 /dev/owned"),
        "77:0 666 1:5\n3:4 640 1:5\n"
    );
    assert_eq!(cri.shell(&id, "head -c 3 /dev/deep/gpu0 | wc -c"), "3\n");
    assert_eq!(cri.shell(&id, "cat /usr/lib/vendor/library.so"), "of the vendor\n");
    assert!(cri.shell(&id, "grep /scratch /proc/mounts").contains("size=64k"));
    assert_eq!(cri.shell(&id, "echo $VISIBLE $ASKED $WITH_GPU; id -G"), "0 vendor 1\n0 4321\n");
    let denied = cri.exec(&id, &["sh", "-c", "echo x >> /usr/lib/vendor/library.so"], 10).unwrap();
    assert!(denied.stderr.contains("Read-only") || denied.stderr.contains("denied"), "{denied:?}");
    // One that only the annotation names.
    let mut noted = idle(&pod, "noted");
    noted.annotations.insert("cdi.k8s.io/tests".into(), "tests.dev/gpu=gpu".into());
    assert_eq!(cri.shell(&pod.start(&noted), "stat -c %u /dev/deep/gpu0"), "0\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_cannot_be_had_is_refused_when_the_container_is_made() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("refused", Network::Node);
    let mut config = idle(&pod, "c");
    ask(&mut config, &["late"]);
    assert!(refused(&daemon, &pod, &config).contains("tests.dev/late=late"));
    // A bad file is named, and stops nobody else; one that comes later is found.
    file(&daemon, "late", &serde_json::json!({}));
    fs::write(daemon.beside("cdi/bad.yaml"), "cdiVersion: 0.6.0\nkind: tests.dev/bad\n").unwrap();
    pod.start(&config);
    let mut bad = idle(&pod, "bad");
    ask(&mut bad, &["bad"]);
    assert!(refused(&daemon, &pod, &bad).contains("bad.yaml"));
    assert!(daemon.log().contains("a file of CDI devices cannot be used"));
    let mut nonsense = idle(&pod, "nonsense");
    nonsense.cdi_devices = vec![cri::CdiDevice { name: "nonsense".into() }];
    assert!(refused(&daemon, &pod, &nonsense).contains("vendor.com/class=device"));
    for (name, edits, wanted) in [
        (
            "gone",
            serde_json::json!({"deviceNodes": [{"path": "/dev/not-there"}]}),
            "/dev/not-there",
        ),
        ("rdt", serde_json::json!({"intelRdt": {"closID": "x"}}), "intelRdt"),
        (
            "hook",
            serde_json::json!({"hooks": [{"hookName": "poststop", "path": "/bin/true"}]}),
            "createContainer",
        ),
        (
            "mount",
            serde_json::json!({"mounts": [{"hostPath": "/not/there", "containerPath": "/x"}]}),
            "/not/there",
        ),
    ] {
        file(&daemon, name, &edits);
        let mut config = idle(&pod, name);
        ask(&mut config, &[name]);
        let text = refused(&daemon, &pod, &config);
        assert!(text.contains(wanted), "{name}: {text}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_hook_sees_the_node_and_the_containers_root_and_changes_it_before_it_runs() {
    let Some(daemon) = Daemon::start() else { return };
    let node = daemon.beside("of-the-node");
    fs::write(&node, "here\n").unwrap();
    // As the hooks of GPU vendors do: the bundle from the state, the root from the spec in it.
    let script = format!(
        "set -e; state=$(cat); bundle=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\n\
         root=$(sed 's/.*\"root\":{{[^}}]*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json)\n\
         test -e $root/dev/null -a -e $root/proc/version -a -e $root/vendor/file\n\
         cat {} > $root/made; ln -s made $root/link; env | sort > $root/env; mount -t tmpfs -o size=8k hook $root/home\n\
         grep -c . /proc/self/mounts > $root/count; echo \"$*\" >> $root/made",
        node.display()
    );
    let path = program(&daemon, "hook", &script);
    let hook = serde_json::json!({"hookName": "createContainer", "path": path, "args": ["hook", "first", "second"],
        "env": ["ONLY=this", "PATH=/bin:/usr/bin"], "timeout": 20});
    let mount = serde_json::json!({"hostPath": node, "containerPath": "/vendor/file"});
    file(&daemon, "hooked", &serde_json::json!({"hooks": [hook], "mounts": [mount]}));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("hooked", Network::Pod);
    let mut config = idle(&pod, "c");
    ask(&mut config, &["hooked"]);
    security(&mut config).readonly_rootfs = true;
    security(&mut config).masked_paths = vec!["/etc/group".into()];
    config.envs = vec![cri::KeyValue { key: "LD_PRELOAD".into(), value: b"/x".to_vec() }];
    let id = pod.start(&config);
    assert_eq!(cri.shell(&id, "cat /made /link; cat /etc/group"), "here\nfirst second\n".repeat(2));
    let env = cri.shell(&id, "cat /env");
    assert!(env.contains("ONLY=this\n") && !env.contains("LD_PRELOAD"), "{env}");
    assert!(cri.shell(&id, "grep ' /home ' /proc/mounts").contains("hook"));
    // The container itself sees nothing of the node, and the node nothing of what the hook mounted.
    let points = cri.shell(&id, "cut -d' ' -f2 /proc/mounts");
    assert!(!points.contains(daemon.beside("").to_str().unwrap()), "{points}");
    assert_eq!(
        cri.shell(&id, "echo x > /dev/shm/x; cat /dev/shm/x; cat /proc/1/comm"),
        "x\ntail\n"
    );
    let mounts = daemon.space().first_process("mountinfo");
    assert!(!mounts.contains(" - tmpfs hook ") && !mounts.contains("/bundle/"), "{mounts}");
    // After a restart of the daemon too.
    config.metadata.as_mut().unwrap().name = "again".into();
    let made = pod.create(&config);
    daemon.restart();
    cri.start(&made).unwrap();
    assert_eq!(cri.shell(&made, "cat /made"), "here\nfirst second\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_hook_that_fails_or_does_not_end_fails_the_start_and_says_why() {
    let Some(daemon) = Daemon::start() else { return };
    let fails = program(&daemon, "fails", "echo the driver is missing >&2; exit 7");
    let hangs = program(&daemon, "hangs", "exec sleep 1000");
    for (name, path, timeout) in [("fails", &fails, 20), ("hangs", &hangs, 1)] {
        let hook =
            serde_json::json!({"hookName": "createContainer", "path": path, "timeout": timeout});
        file(&daemon, name, &serde_json::json!({"hooks": [hook]}));
    }
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("fails", Network::Node);
    for (name, wanted) in [("fails", "the driver is missing"), ("hangs", "did not end within 1s")] {
        let mut config = idle(&pod, name);
        ask(&mut config, &[name]);
        let id = pod.create(&config);
        let failed = cri.start(&id).unwrap_err();
        assert!(failed.message().contains(wanted), "{failed:?}");
        let status = cri.status(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}
