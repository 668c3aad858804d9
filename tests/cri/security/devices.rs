//! Devices: those that every container has, those that a request names, with its rights and no others.

use super::{denied, idle, refused};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;

fn device(host: &str, at: &str, permissions: &str) -> cri::Device {
    cri::Device {
        host_path: host.into(),
        container_path: at.into(),
        permissions: permissions.into(),
    }
}

#[test]
fn root_what_is_asked_for_is_there_with_its_rights() {
    let Some(daemon) = Daemon::start() else { return };
    let folder = daemon.beside("nodes");
    // Zero under other numbers than the usual devices have would not exist: the usual ones are allowed anyway,
    // so what the rules do is seen at a loop device.
    daemon.space().shell(&format!(
        "mkdir -p {0}/sub; mknod {0}/zero c 1 5; mknod {0}/sub/null c 1 3; echo x > {0}/file; ln -s zero {0}/link",
        folder.display()
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("devices", Network::Node);
    let mut config = idle(&pod, "c");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    config.devices = vec![
        device(&path("link"), "/dev/by-link", "rw"),
        device(&path(""), "/dev/all", "r"),
        device("/dev/zero", "/data/block", ""),
    ];
    let id = pod.start(&config);
    let shown = cri
        .shell(&id, "stat -c '%n %t:%T' /dev/by-link /dev/all/zero /dev/all/sub/null /data/block");
    assert_eq!(
        shown,
        "/dev/by-link 1:5\n/dev/all/zero 1:5\n/dev/all/sub/null 1:3\n/data/block 1:5\n"
    );
    assert_eq!(cri.shell(&id, "ls /dev/all"), "sub\nzero\n");
    assert_eq!(cri.shell(&id, "head -c 2 /data/block | wc -c"), "2\n");
    // A node that was not asked for may be made, and not used.
    cri.shell(&id, "mknod /tmp/loop b 7 0; mknod /tmp/kmsg c 1 11");
    assert!(denied(&daemon, &id, "cat /tmp/kmsg").contains("not permitted"));
    assert!(denied(&daemon, &id, "head -c 1 /tmp/loop").contains("not permitted"));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_rights_of_a_device_are_those_of_the_request() {
    let Some(daemon) = Daemon::start() else { return };
    // FUSE's: everybody may open it, for nothing happens.
    let node = daemon.beside("fuse");
    daemon.space().shell(&format!("mknod -m 666 {} c 10 229", node.display()));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("rights", Network::Node);
    let host = node.to_string_lossy().into_owned();
    for (name, permissions, write) in [("r", "r", false), ("rw", "rw", true)] {
        let mut config = idle(&pod, name);
        config.devices = vec![device(&host, "/dev/fuse", permissions)];
        let id = pod.start(&config);
        cri.shell(&id, "exec 3</dev/fuse");
        let wrote = cri.exec(&id, &["sh", "-c", "exec 3>/dev/fuse"], 10).unwrap();
        assert_eq!(wrote.code == 0, write, "{permissions}: {wrote:?}");
    }
    for bad in [
        device(&host, "/dev/x", "rwx"),
        device("dev/null", "/dev/x", "r"),
        device("/dev/../dev/null", "/dev/x", "r"),
        device("/dev/null", "x", "r"),
        device("/dev/null", "/dev/../../x", "r"),
        device("/dev/not-there", "/dev/x", "r"),
        device("/etc/passwd", "/dev/x", "r"),
    ] {
        let mut config = idle(&pod, "refused");
        config.devices = vec![bad.clone()];
        assert!(refused(&daemon, &pod, &config).contains("devices[0]"), "{bad:?}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}
