//! Mounts: read-only one deep or all the way, flags that a later step does not lose, propagation into and
//! out of a container only where source and request allow it, and no path that leads out of the root.

use super::{denied, idle, refused};
use shim_proto::runtime_v1 as cri;
use std::path::Path;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};

fn mount(host: &Path, at: &str) -> cri::Mount {
    let host_path = host.to_string_lossy().into_owned();
    cri::Mount { container_path: at.into(), host_path, ..Default::default() }
}

fn privileged<'d>(daemon: &'d Daemon, name: &str) -> Pod<'d> {
    let mut config = requests::pod(name, Network::Node, &daemon.logs());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    Pod::run(daemon, config)
}

#[test]
fn root_read_only_is_one_deep_or_all_the_way() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    daemon.space().shell(&format!("mkdir -p {0}/sub; mount -t tmpfs sub {0}/sub", data.display()));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("readonly", Network::Node);
    let mut config = idle(&pod, "c");
    let shallow = cri::Mount { readonly: true, ..mount(&data, "/shallow") };
    let deep = cri::Mount { readonly: true, recursive_read_only: true, ..mount(&data, "/deep") };
    config.mounts = vec![shallow, deep, mount(&data, "/open")];
    let id = pod.start(&config);
    cri.shell(&id, "echo x > /shallow/sub/x; echo x > /open/x; echo x > /open/sub/y");
    for path in ["/shallow/z", "/deep/z", "/deep/sub/z"] {
        assert!(denied(&daemon, &id, &format!("echo x > {path}")).contains("Read-only"), "{path}");
    }
    let shown = &cri.status(&id).mounts;
    assert!(shown[1].recursive_read_only && !shown[0].recursive_read_only);
    for change in [
        |m: &mut cri::Mount| m.readonly = false,
        |m: &mut cri::Mount| {
            m.propagation = cri::MountPropagation::PropagationHostToContainer.into();
        },
        |m: &mut cri::Mount| m.propagation = cri::MountPropagation::PropagationBidirectional.into(),
    ] {
        let mut config = idle(&pod, "refused");
        let mut deep =
            cri::Mount { readonly: true, recursive_read_only: true, ..mount(&data, "/deep") };
        change(&mut deep);
        config.mounts = vec![deep];
        assert!(refused(&daemon, &pod, &config).contains("recursive_read_only"));
    }
    pod.remove();
    daemon.space().shell(&format!("umount {0}/sub; rm {0}/x", data.display()));
    drop(leaks);
}

#[test]
fn root_options_of_a_mount_are_in_force_and_only_those_that_are_known() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    daemon.space().shell(&format!(
        "mkdir {0}; mount -t tmpfs -o nosuid x {0}; cp /bin/busybox {0}",
        data.display()
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("options", Network::Node);
    let mut config = idle(&pod, "c");
    let options = vec!["noexec".into(), "nodev".into()];
    config.mounts = vec![
        cri::Mount { mount_options: options, readonly: true, ..mount(&data, "/closed") },
        mount(&data, "/open"),
    ];
    let id = pod.start(&config);
    let flags =
        |point: &str| cri.shell(&id, &format!("grep ' {point} ' /proc/mounts | cut -d' ' -f4"));
    let closed = flags("/closed");
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(closed.trim().split(',').any(|known| known == flag), "{flag}: {closed}");
    }
    let open = flags("/open");
    assert!(
        open.contains("nosuid") && !open.contains("noexec") && open.starts_with("rw"),
        "{open}"
    );
    assert!(denied(&daemon, &id, "/closed/busybox true").contains("Permission denied"));
    cri.shell(&id, "/open/busybox true");
    let mut config = idle(&pod, "refused");
    config.mounts = vec![cri::Mount { mount_options: vec!["exec".into()], ..mount(&data, "/x") }];
    assert!(refused(&daemon, &pod, &config).contains("mount_options"));
    pod.remove();
    daemon.space().shell(&format!("umount {}", data.display()));
    drop(leaks);
}

#[test]
fn root_mounts_travel_only_as_far_as_was_asked_for() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    // Shared, as everything in a test's space.
    daemon.space().shell(&format!(
        "mkdir {0}; mount -t tmpfs data {0}; mkdir {0}/host {0}/inside {0}/plain",
        data.display()
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = privileged(&daemon, "propagation");
    let start = |name: &str, propagation: cri::MountPropagation| {
        let mut config = idle(&pod, name);
        config.mounts =
            vec![cri::Mount { propagation: propagation.into(), ..mount(&data, "/data") }];
        security(&mut config).privileged = true;
        pod.start(&config)
    };
    let private = start("private", cri::MountPropagation::PropagationPrivate);
    let into = start("into", cri::MountPropagation::PropagationHostToContainer);
    let both = start("both", cri::MountPropagation::PropagationBidirectional);
    daemon
        .space()
        .shell(&format!("mount -t tmpfs later {0}/host; touch {0}/host/x", data.display()));
    let sees = |id: &str, name: &str| {
        cri.exec(id, &["test", "-e", &format!("/data/{name}/x")], 10).unwrap().code == 0
    };
    assert_eq!([&private, &into, &both].map(|id| sees(id, "host")), [false, true, true]);
    for (id, name, comes) in [(&both, "inside", true), (&into, "plain", false)] {
        cri.shell(id, &format!("mount -t tmpfs inner /data/{name} && touch /data/{name}/x"));
        let outside = daemon.space().path(data.join(name).join("x"));
        assert_eq!(outside.exists(), comes, "{name}");
    }
    assert!(sees(&into, "inside") && !sees(&private, "inside"));
    // Even then nothing else of the container's mounts is the node's.
    assert!(!daemon.space().first_process("mountinfo").contains(" - tmpfs tmpfs rw,size=65536k"));
    pod.remove();
    daemon.space().shell(&format!("umount -R {}", data.display()));
    drop(leaks);
}

#[test]
fn root_propagation_needs_a_source_that_has_it() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    daemon.space().shell(&format!(
        "mkdir {0}; mount -t tmpfs data {0}; mount --make-private {0}",
        data.display()
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = privileged(&daemon, "private");
    for propagation in [
        cri::MountPropagation::PropagationHostToContainer,
        cri::MountPropagation::PropagationBidirectional,
    ] {
        let mut config = idle(&pod, propagation.as_str_name());
        config.mounts =
            vec![cri::Mount { propagation: propagation.into(), ..mount(&data, "/data") }];
        security(&mut config).privileged = true;
        let text = refused(&daemon, &pod, &config);
        assert!(text.contains("propagation") && text.contains(data.to_str().unwrap()), "{text}");
    }
    // A slave takes what comes, and gives nothing.
    let slave = daemon.beside("slave");
    daemon.space().shell(&format!(
        "mkdir {1}; mount --make-shared {0}; mount --bind {0} {1}; mount --make-slave {1}",
        data.display(),
        slave.display()
    ));
    let with = |name: &str, propagation: cri::MountPropagation| {
        let mut config = idle(&pod, name);
        config.mounts =
            vec![cri::Mount { propagation: propagation.into(), ..mount(&slave, "/data") }];
        security(&mut config).privileged = true;
        config
    };
    let text =
        refused(&daemon, &pod, &with("out", cri::MountPropagation::PropagationBidirectional));
    assert!(text.contains("not shared"), "{text}");
    let id = pod.start(&with("in", cri::MountPropagation::PropagationHostToContainer));
    daemon.space().shell(&format!(
        "mkdir {0}/later; mount -t tmpfs later {0}/later; touch {0}/later/x",
        data.display()
    ));
    cri.shell(&id, "test -e /data/later/x");
    let both = cri::MountPropagation::PropagationBidirectional.into();
    // Whoever is not privileged does not mount into the node.
    let mut config = idle(&pod, "usual");
    config.mounts = vec![cri::Mount { propagation: both, ..mount(&data, "/data") }];
    assert!(refused(&daemon, &pod, &config).contains("privileged"));
    pod.remove();
    daemon.space().shell(&format!("umount -R {}; umount -R {}", slave.display(), data.display()));
    drop(leaks);
}

#[test]
fn root_a_target_never_leads_out_of_the_root() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    let canary = daemon.beside("canary");
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&canary).unwrap();
    // A volume that holds a link to the node, as a container may have made it.
    std::os::unix::fs::symlink(&canary, data.join("link")).unwrap();
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("targets", Network::Node);
    let mut config = idle(&pod, "c");
    config.mounts = vec![
        mount(&data, "/volume"),
        mount(&data, "/volume/link/deep"),
        mount(&data, "/../../up"),
        mount(Path::new("/etc/hostname"), "/etc/new/file"),
    ];
    let id = pod.start(&config);
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    // What the link names is a path of the container.
    cri.shell(
        &id,
        &format!("test -e {}/deep/link -o -L {}/deep/link", canary.display(), canary.display()),
    );
    cri.shell(&id, "test -L /up/link && test -s /etc/new/file");
    for (path, host) in [("", "/tmp"), ("/", "/tmp"), ("/./", "/tmp"), ("/x", "tmp"), ("/x", "")] {
        let mut config = idle(&pod, "refused");
        config.mounts = vec![mount(Path::new(host), path)];
        assert!(refused(&daemon, &pod, &config).contains("mounts[0]"), "{path} {host}");
    }
    pod.remove();
    std::fs::remove_file(data.join("link")).unwrap();
    drop(leaks);
}
