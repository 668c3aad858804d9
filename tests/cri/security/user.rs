//! A user namespace for a pod: exactly the maps that were asked for, everything the pod makes belongs to
//! it, files keep their owners on the node, and what cannot be mapped is refused.

use super::{idle, refused};
use shim_proto::runtime_v1 as cri;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};

/// First ids of the node, for users and for groups.
const USERS: u32 = 700_000;
const GROUPS: u32 = 900_000;
const COUNT: u32 = 65_536;

fn line(host_id: u32) -> Vec<cri::IdMapping> {
    vec![cri::IdMapping { host_id, container_id: 0, length: COUNT }]
}

fn options(config: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

/// A pod with these maps, not yet run.
fn mapped(daemon: &Daemon, name: &str, network: Network) -> cri::PodSandboxConfig {
    let mut config = requests::pod(name, network, &daemon.logs());
    let mode = cri::NamespaceMode::Pod.into();
    options(&mut config).userns_options =
        Some(cri::UserNamespace { mode, uids: line(USERS), gids: line(GROUPS) });
    config
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = std::fs::metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

fn volume(path: &Path, at: &str) -> cri::Mount {
    let host_path = path.to_string_lossy().into_owned();
    cri::Mount { container_path: at.into(), host_path, ..Default::default() }
}

fn mapped_volume(path: &Path, at: &str) -> cri::Mount {
    let (uid_mappings, gid_mappings) = (line(USERS), line(GROUPS));
    cri::Mount { uid_mappings, gid_mappings, ..volume(path, at) }
}

#[test]
fn root_a_pod_is_root_in_its_own_user_namespace_only() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "user", Network::Pod));
    let id = pod.idle("c");
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let maps = cri.shell(&id, "cat /proc/1/uid_map /proc/1/gid_map");
    assert_eq!(words(maps), format!("0 {USERS} {COUNT} 0 {GROUPS} {COUNT}"));
    assert_eq!(cri.shell(&id, "id -u; id -g; id -G"), "0\n0\n0\n");
    let host = cri.info(&id)["pid"].as_i64().unwrap();
    let status = daemon.space().path(format!("/proc/{host}/status"));
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains(&format!("Uid:\t{USERS}\t{USERS}\t{USERS}\t{USERS}")), "{status}");
    assert!(status.contains(&format!("Gid:\t{GROUPS}\t")), "{status}");
    // Every namespace but the node's own ones belongs to it: its root may change what they hold.
    let of =
        |kind: &str| std::fs::read_link(daemon.space().path(format!("/proc/{host}/ns/{kind}")));
    let nodes = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}"));
    for kind in ["user", "net", "ipc", "uts", "mnt", "pid", "cgroup"] {
        assert_ne!(of(kind).unwrap(), nodes(kind).unwrap(), "{kind}");
    }
    // Another user of the image is another one of the node, and sees itself as the image says.
    let mut named = idle(&pod, "named");
    security(&mut named).run_as_username = "user".into();
    let named = pod.start(&named);
    assert_eq!(
        cri.shell(&named, "id -u; id -g; id -G; stat -c %u:%g /etc/passwd"),
        "1000\n1000\n1000 2000\n0:0\n"
    );
    let denied = cri.exec(&named, &["sh", "-c", "echo x > /etc/passwd"], 10).unwrap();
    assert!(denied.stderr.contains("Permission denied"), "{denied:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_its_root_may_do_inside_what_it_may_not_outside() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = mapped(&daemon, "rights", Network::Pod);
    let linux = config.linux.as_mut().unwrap();
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "42"),
        ("kernel.domainname", "example.org"),
        ("user.max_mnt_namespaces", "77"),
    ] {
        linux.sysctls.insert(name.into(), value.into());
    }
    let pod = Pod::run(&daemon, config);
    let mut config = idle(&pod, "c");
    let all = cri::Capability { add_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut config).capabilities = Some(all);
    let id = pod.start(&config);
    let read = "cd /proc/sys; cat net/ipv4/ip_forward kernel/shm_rmid_forced fs/mqueue/msg_max \
                kernel/domainname user/max_mnt_namespaces net/ipv4/ping_group_range";
    let said = cri.shell(&id, read);
    assert_eq!(said, "1\n1\n42\nexample.org\n77\n0\t65535\n");
    // What belongs to its namespaces it changes; its own mounts it makes.
    cri.shell(
        &id,
        "hostname other && ip link set lo mtu 1400 && echo 0 > /proc/sys/net/ipv4/ip_forward",
    );
    cri.shell(&id, "mount -t tmpfs none /tmp && echo x > /tmp/x && umount /tmp");
    // What is the node's it does not, whatever its capabilities are called.
    for script in [
        "echo 1 > /proc/sys/kernel/panic",
        "mknod /tmp/zero c 1 5",
        "mount -t ext4 /dev/zero /tmp",
        "echo b > /proc/sysrq-trigger",
    ] {
        let denied = cri.exec(&id, &["sh", "-c", script], 10).unwrap();
        assert_ne!(denied.code, 0, "{script}: {denied:?}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_files_of_the_image_and_of_the_pod_belong_to_the_pods_users() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "files", Network::Pod));
    let id = pod.idle("c");
    let shown = cri.shell(
        &id,
        "stat -c '%n %u:%g %a' / /etc/passwd /etc/hosts /dev /dev/null /dev/shm /proc /tmp",
    );
    let wanted = "/ 0:0 755\n/etc/passwd 0:0 644\n/etc/hosts 0:0 644\n/dev 0:0 755\n/dev/null 0:0 666\n/dev/shm 0:0 1777\n/proc 65534:65534 555\n/tmp 0:0 1777\n";
    assert_eq!(shown, wanted);
    // It owns them: it may change what is there and make more, of any of its users.
    cri.shell(&id, "echo 1.2.3.4 x >> /etc/hosts; chown 5:6 /etc/passwd; touch /new /dev/shm/new");
    cri.shell(&id, "echo y > /dev/null; head -c 4 /dev/zero | wc -c; echo z > /dev/stdout");
    let upper = daemon.space().path(daemon.root()).join("writable").join(&id).join("upper");
    assert_eq!(owner(&upper), (USERS, GROUPS));
    assert_eq!(owner(&upper.join("new")), (USERS, GROUPS));
    assert_eq!(owner(&upper.join("etc/passwd")), (USERS + 5, GROUPS + 6));
    // The image is as it was: a pod without maps sees the owners that the image says.
    let plain = daemon.pod("plain", Network::Node);
    let other = plain.idle("c");
    assert_eq!(cri.shell(&other, "stat -c %u:%g / /etc/passwd /bin/busybox"), "0:0\n0:0\n0:0\n");
    plain.remove();
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_volumes_are_mapped_where_the_request_says_so() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "of the host\n").unwrap();
    daemon.space().shell(&format!("mkdir {0}/sub && mount -t tmpfs sub {0}/sub", data.display()));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "volumes", Network::Node));
    let mut config = idle(&pod, "c");
    config.mounts = vec![mapped_volume(&data, "/mapped"), volume(&data, "/bare")];
    let id = pod.start(&config);
    let shown = cri.shell(&id, "cd /; stat -c %u:%g mapped mapped/file mapped/sub bare bare/file");
    assert_eq!(shown, "0:0\n0:0\n0:0\n65534:65534\n65534:65534\n");
    cri.shell(&id, "echo new > /mapped/new; chown 7:8 /mapped/new; echo x > /mapped/sub/x");
    assert_eq!(owner(&data.join("new")), (7, 8));
    let denied = cri.exec(&id, &["sh", "-c", "echo x > /bare/x"], 10).unwrap();
    assert!(denied.stderr.contains("Permission denied"), "{denied:?}");
    let shown = cri.status(&id).mounts;
    assert_eq!((&shown[0].uid_mappings, shown[1].uid_mappings.len()), (&line(USERS), 0));
    pod.remove();
    daemon.space().shell(&format!("umount {}/sub", data.display()));
    std::fs::remove_file(data.join("new")).unwrap();
    drop(leaks);
}

#[test]
fn root_a_file_system_that_cannot_map_ids_is_refused_and_never_bound_bare() {
    let Some(daemon) = Daemon::start() else { return };
    let odd = daemon.beside("odd");
    daemon.space().shell(&format!("mkdir {0} && mount -t ramfs none {0}", odd.display()));
    let below = daemon.beside("below");
    let script = format!("mkdir -p {0}/sub && mount -t ramfs none {0}/sub", below.display());
    daemon.space().shell(&script);
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "odd", Network::Node));
    for (name, path) in [("top", &odd), ("sub", &below)] {
        let mut config = idle(&pod, name);
        config.mounts = vec![mapped_volume(path, "/v")];
        let id = pod.create(&config);
        let failed = cri.start(&id).unwrap_err();
        assert!(failed.message().contains("cannot map ids"), "{failed:?}");
        assert!(failed.message().contains(path.to_str().unwrap()), "{failed:?}");
        assert_eq!(cri.status(&id).reason, "StartError");
    }
    // Without maps it is bound as it is, because that was asked for.
    let mut config = idle(&pod, "bare");
    config.mounts = vec![volume(&odd, "/v")];
    pod.start(&config);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_maps_that_do_not_fit_are_refused_by_name() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let with = |change: fn(&mut cri::UserNamespace)| {
        let mut config = mapped(&daemon, "refused", Network::Node);
        change(options(&mut config).userns_options.as_mut().unwrap());
        cri.run_pod(&config).map(|id| panic!("{id} runs")).unwrap_err().message().to_owned()
    };
    for mode in [cri::NamespaceMode::Container, cri::NamespaceMode::Target] {
        let mut config = mapped(&daemon, "refused", Network::Node);
        options(&mut config).userns_options.as_mut().unwrap().mode = mode.into();
        assert!(cri.run_pod(&config).unwrap_err().message().contains("userns_options.mode"));
    }
    assert!(with(|user| user.uids.push(user.uids[0])).contains("userns_options.uids"));
    assert!(with(|user| user.gids.clear()).contains("userns_options.gids"));
    assert!(with(|user| user.gids[0].container_id = 1).contains("container id 0"));
    assert!(with(|user| user.uids[0].length = 0).contains("at least one"));

    let pod = Pod::run(&daemon, mapped(&daemon, "pod", Network::Node));
    let mut other = idle(&pod, "other");
    let namespaces = security(&mut other).namespace_options.as_mut().unwrap();
    namespaces.userns_options.as_mut().unwrap().uids[0].host_id += 1;
    assert!(refused(&daemon, &pod, &other).contains("as its sandbox has"));
    security(&mut other).namespace_options.as_mut().unwrap().userns_options = None;
    assert!(refused(&daemon, &pod, &other).contains("as its sandbox has"));
    let mut large = idle(&pod, "large");
    security(&mut large).run_as_user = Some(cri::Int64Value { value: i64::from(COUNT) });
    assert!(refused(&daemon, &pod, &large).contains("run_as_user"));
    let mut group = idle(&pod, "group");
    security(&mut group).supplemental_groups = vec![i64::from(COUNT)];
    assert!(refused(&daemon, &pod, &group).contains("supplemental_groups"));
    let mut mount = idle(&pod, "mount");
    mount.mounts = vec![mapped_volume(Path::new("/tmp"), "/v")];
    mount.mounts[0].gid_mappings[0].length -= 1;
    assert!(refused(&daemon, &pod, &mount).contains("mounts[0].gidMappings"));
    pod.remove();
    // A map needs a namespace.
    let plain = daemon.pod("plain", Network::Node);
    let mut mount = idle(&plain, "mount");
    mount.mounts = vec![mapped_volume(Path::new("/tmp"), "/v")];
    assert!(refused(&daemon, &plain, &mount).contains("mounts[0].uidMappings"));
    plain.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_it_may_be_with_the_nodes_network_and_with_shared_processes() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = mapped(&daemon, "shared", Network::Node);
    options(&mut config).pid = cri::NamespaceMode::Pod.into();
    let pod = Pod::run(&daemon, config);
    let first = pod.idle("first");
    let second = pod.run_in("second", &["sh", "-c", "sleep 1000"]);
    let names = cri.shell(&first, "cat /proc/[0-9]*/comm");
    assert!(names.contains("tail") && names.contains("sleep"), "{names}");
    // The node's network is seen, and not changed; the node's system is not written.
    assert!(cri.shell(&first, "ip link; ls /sys/class/net").contains("cni0"));
    for script in ["ip link set lo mtu 1400", "echo x > /sys/class/net/lo/mtu"] {
        let denied = cri.exec(&first, &["sh", "-c", script], 10).unwrap();
        assert_ne!(denied.code, 0, "{script}: {denied:?}");
    }
    // Its first process is not the node's root either, and closed to the others.
    let denied = cri.exec(&first, &["ls", "/proc/1/root/"], 10).unwrap();
    assert_ne!(denied.code, 0, "{denied:?}");
    cri.stop(&second, 0).unwrap();
    for pid in ["Target", "Container"] {
        let mut third = idle(&pod, pid);
        let options = security(&mut third).namespace_options.as_mut().unwrap();
        let target = pid == "Target";
        options.pid =
            if target { cri::NamespaceMode::Target } else { cri::NamespaceMode::Container }.into();
        options.target_id.clone_from(&first);
        let third = pod.start(&third);
        let found = cri.shell(&third, "cat /proc/1/comm");
        assert_eq!(found, if target { "wherry-podinit\n" } else { "tail\n" });
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_devices_are_given_not_made() {
    let Some(daemon) = Daemon::start() else { return };
    let node = daemon.beside("node");
    daemon.space().shell(&format!("mknod -m 640 {0} c 1 5; chown 3:4 {0}", node.display()));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "devices", Network::Node));
    let mut config = idle(&pod, "c");
    let host_path = node.to_string_lossy().into_owned();
    for container_path in ["/dev/deep/zero", "/data/zero"] {
        config.devices.push(cri::Device {
            container_path: container_path.into(),
            host_path: host_path.clone(),
            permissions: "rw".into(),
        });
    }
    let id = pod.start(&config);
    let shown = cri.shell(&id, "stat -c '%F %u:%g %a %t:%T' /dev/deep/zero /data/zero");
    let wanted = "character special file 3:4 640 1:5\n";
    assert_eq!(shown, wanted.repeat(2));
    assert_eq!(cri.shell(&id, "cat /dev/deep/zero /data/zero | head -c 5 | wc -c"), "5\n");
    assert_eq!(
        cri.shell(
            &id,
            "stat -c %u:%g /dev/deep; test -c /dev/ptmx && test -c /dev/tty && echo yes"
        ),
        "0:0\nyes\n"
    );
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_daemon_that_was_killed_goes_on_with_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = Pod::run(&daemon, mapped(&daemon, "again", Network::Pod));
    let id = pod.idle("first");
    let made = pod.create(&idle(&pod, "made"));
    daemon.restart();
    assert_eq!(cri.shell(&id, "id -u; stat -c %u /etc/passwd"), "0\n0\n");
    // One that was made before, whose mounts are gone, and one that is made now.
    cri.start(&made).unwrap();
    let now = pod.idle("now");
    for id in [&made, &now] {
        let map = cri.shell(id, "cat /proc/self/uid_map; stat -c %u / /etc/passwd");
        assert_eq!(map.split_whitespace().nth(1), Some(USERS.to_string().as_str()), "{map}");
        assert!(map.ends_with("\n0\n0\n"), "{map}");
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_reboot_leaves_nothing_of_it() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = Pod::run(&daemon, mapped(&daemon, "booted", Network::Pod));
    let id = pod.idle("c");
    daemon.reboot();
    daemon.start_again();
    let cri = daemon.cri();
    assert!(!cri.is_ready(&pod.id));
    let shown = cri.pod_status(&pod.id).unwrap().status.unwrap().linux.unwrap();
    let user = shown.namespaces.unwrap().options.unwrap().userns_options.unwrap();
    assert_eq!((user.uids, user.gids), (line(USERS), line(GROUPS)));
    assert_eq!(cri.ended(&id).exit_code, 255);
    pod.remove();
    let again = Pod::run(&daemon, mapped(&daemon, "booted", Network::Pod));
    cri.shell(&again.idle("c"), "touch /new");
    again.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_features_say_that_it_works_here() {
    let Some(daemon) = Daemon::start() else { return };
    let status = daemon.cri().runtime_status().unwrap();
    // Those of another program have none, which README says.
    let own = |handler: &&cri::RuntimeHandler| ["", "wherry"].contains(&handler.name.as_str());
    let handlers: Vec<_> = status.runtime_handlers.iter().filter(own).collect();
    assert_eq!(handlers.len(), 2);
    for handler in handlers {
        assert!(handler.features.unwrap().user_namespaces, "{handler:?}");
    }
    assert!(status.features.unwrap().user_namespaces_host_network);
}
