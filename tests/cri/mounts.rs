//! Mounts as containers see them: options of a mount, beside read-only and what the source has already.

use shim_proto::runtime_v1 as cri;
use std::path::Path;
use tonic::Code;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;

fn mount(from: &Path, to: &str, options: &[&str]) -> cri::Mount {
    cri::Mount {
        host_path: from.to_string_lossy().into_owned(),
        container_path: to.to_owned(),
        mount_options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..cri::Mount::default()
    }
}

/// The options of a mount point, out of the container's `mountinfo`.
fn options(mountinfo: &str, point: &str) -> Vec<String> {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some(point));
    let line = line.unwrap_or_else(|| panic!("{point} is not mounted: {mountinfo}"));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

fn has(mountinfo: &str, point: &str, wanted: &[&str]) {
    let found = options(mountinfo, point);
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        let is_there = found.iter().any(|known| known == option);
        assert_eq!(is_there, wanted.contains(&option), "{option} of {point}: {found:?}");
    }
}

#[test]
fn root_options_of_mounts_are_in_force_whatever_else_is_asked() {
    let Some(daemon) = Daemon::start() else { return };
    let source = daemon.beside("source");
    let at = source.display();
    // A source that allows no set-id programs itself, with another file system below it.
    daemon.space().shell(&format!(
        "mkdir {at}; mount -t tmpfs -o nosuid source {at}; mkdir {at}/below\n\
         mount -t tmpfs below {at}/below; cp /bin/busybox {at}/below/busybox; cp /bin/busybox {at}"
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("options", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    let readonly = |mount| cri::Mount { readonly: true, ..mount };
    let mut slave = mount(&source, "/slave", &["nodev"]);
    slave.propagation = cri::MountPropagation::PropagationHostToContainer.into();
    let mut recursive = readonly(mount(&source, "/recursive", &["nodev"]));
    recursive.recursive_read_only = true;
    config.mounts = vec![
        mount(&source, "/plain", &[]),
        mount(&source, "/all", &["noexec", "nodev", "nosuid"]),
        readonly(mount(&source, "/readonly", &["noexec"])),
        recursive,
        slave,
    ];
    let id = pod.start(&config);
    let found = cri.shell(&id, "cat /proc/self/mountinfo");
    has(&found, "/plain", &["nosuid"]);
    has(&found, "/all", &["nosuid", "nodev", "noexec"]);
    has(&found, "/readonly", &["ro", "nosuid", "noexec"]);
    has(&found, "/recursive", &["ro", "nosuid", "nodev"]);
    has(&found, "/slave", &["nosuid", "nodev"]);
    // The top mount alone: what is mounted below keeps its own, but for a recursive read-only.
    for point in ["/plain/below", "/all/below", "/readonly/below", "/slave/below"] {
        has(&found, point, &[]);
    }
    has(&found, "/recursive/below", &["ro"]);
    // And the kernel acts on it.
    let run = |program: &str| cri.exec(&id, &["sh", "-c", &format!("{program} true")], 0).unwrap();
    assert_eq!(run("/plain/busybox").code, 0);
    assert_eq!(run("/all/below/busybox").code, 0);
    let refused = run("/all/busybox");
    assert_eq!(refused.code, 126, "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    cri.shell(&id, "mknod /plain/null c 1 3; cat /plain/null");
    let refused = cri.exec(&id, &["cat", "/all/null"], 0).unwrap();
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    // They are shown as they were asked for.
    let shown = cri.status(&id).mounts;
    let shown: Vec<_> = shown.iter().map(|mount| mount.mount_options.len()).collect();
    assert_eq!(shown, [0, 3, 1, 1, 1]);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_an_unknown_option_of_a_mount_is_refused_by_name() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let call = |mut client: wherry_tests::cri::Runtime| async move {
        client.status(cri::StatusRequest::default()).await
    };
    assert!(cri.ask(call).unwrap().into_inner().features.unwrap().mount_options);
    let pod = daemon.pod("unknown", Network::Node);
    for option in ["exec", "noatime", "ro", "NOEXEC", ""] {
        let mut config = pod.container("c", &["true"]);
        config.mounts = vec![mount(Path::new("/tmp"), "/x", &["nodev", option])];
        let refused = cri.create(&pod.id, &config, &pod.config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let text = format!("config.mounts[0].mount_options: found \"{option}\"");
        assert!(refused.message().contains(&text), "{refused:?}");
    }
    assert!(cri.containers().unwrap().is_empty());
    pod.remove();
    leaks.assert_same_after(&daemon);
}

/// Programs take a cgroup2 in their mounts for the place of their limits.
#[test]
fn root_cgroup_v2_is_shown_as_all_of_it_or_not_at_all() {
    let Some(daemon) = Daemon::start() else { return };
    let pod = daemon.pod("groups", Network::Node);
    let mountinfo = daemon.cri().shell(&pod.idle("c"), "cat /proc/self/mountinfo");
    let of = |kind: &str| -> Vec<_> {
        let lines = mountinfo.lines().filter(|line| line.contains(&format!(" - {kind} ")));
        lines.filter_map(|line| line.split(' ').nth(4)).collect()
    };
    let only_v2 = of("cgroup").is_empty();
    let wanted: &[&str] = if only_v2 { &["/sys/fs/cgroup"] } else { &[] };
    assert_eq!(of("cgroup2"), wanted, "{mountinfo}");
}
