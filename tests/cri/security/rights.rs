//! Capabilities, `no_new_privs` and privileged containers: the sets of the first process and of every exec
//! are what was asked for, and all of the node's power comes only with its name.

use super::{denied, idle, number, refused, status};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};

const NONE: &str = "0000000000000000";
const NET_ADMIN: &str = "0000000000001000";
const NET_BIND_SERVICE: &str = "0000000000000400";

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn change(add: &[&str], drop: &[&str], ambient: &[&str]) -> cri::Capability {
    cri::Capability {
        add_capabilities: words(add),
        drop_capabilities: words(drop),
        add_ambient_capabilities: words(ambient),
    }
}

/// A pod that may hold privileged containers.
fn powerful<'d>(daemon: &'d Daemon, name: &str) -> Pod<'d> {
    let mut config = requests::pod(name, Network::Node, &daemon.logs());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    Pod::run(daemon, config)
}

#[test]
fn root_sets_are_exactly_what_was_asked_for() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("sets", Network::Node);
    let start = |name: &str, capabilities, user| {
        let mut config = idle(&pod, name);
        security(&mut config).capabilities = Some(capabilities);
        security(&mut config).run_as_user = user;
        pod.start(&config)
    };
    let sets = |id: &str| {
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| status(&daemon, id, set))
    };
    let one = start("one", change(&["net_admin"], &["all"], &[]), None);
    assert_eq!(sets(&one), [NONE, NET_ADMIN, NET_ADMIN, NET_ADMIN, NONE]);
    let user = start("user", change(&["CAP_NET_ADMIN"], &["ALL"], &[]), Some(number(1000)));
    assert_eq!(sets(&user), [NONE, NONE, NONE, NET_ADMIN, NONE]);
    // Ambient ones a user keeps over exec.
    let only = &["NET_BIND_SERVICE"];
    let ambient = start("ambient", change(&[], &["ALL"], only), Some(number(1000)));
    assert_eq!(sets(&ambient), [NET_BIND_SERVICE; 5]);
    let dropped = start("dropped", change(&["NET_ADMIN"], &["NET_ADMIN"], &[]), None);
    assert_eq!(status(&daemon, &dropped, "CapBnd"), "00000000a80425fb");
    for capabilities in
        [change(&["CAP_FOO"], &[], &[]), change(&[], &["FOO"], &[]), change(&[], &[], &["FOO"])]
    {
        let mut config = idle(&pod, "refused");
        security(&mut config).capabilities = Some(capabilities);
        assert!(refused(&daemon, &pod, &config).contains("capabilities"));
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_no_new_privs_holds_for_everybody_in_the_container() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = powerful(&daemon, "nnp");
    let setuid = "cp /bin/busybox /tmp/id; chmod 4755 /tmp/id";
    let mut free = idle(&pod, "free");
    free.command = words(&["sh", "-c", &format!("{setuid}; exec tail -f /dev/null")]);
    let free = pod.start(&free);
    let mut bound = idle(&pod, "bound");
    security(&mut bound).no_new_privs = true;
    bound.command = words(&["sh", "-c", &format!("{setuid}; exec tail -f /dev/null")]);
    let bound = pod.start(&bound);
    assert_eq!([&free, &bound].map(|id| status(&daemon, id, "NoNewPrivs")), ["0", "1"]);
    let as_user =
        "chroot --userspec=1000 / /tmp/id id -u 2>/dev/null || setpriv --reuid 1000 /tmp/id id -u";
    let _best_effort = cri.exec(&free, &["sh", "-c", as_user], 10).unwrap();
    // Also where a container is privileged: it was asked for.
    let mut both = idle(&pod, "both");
    security(&mut both).no_new_privs = true;
    security(&mut both).privileged = true;
    let both = pod.start(&both);
    assert_eq!(status(&daemon, &both, "NoNewPrivs"), "1");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_privileged_is_everything_and_only_by_its_name() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = powerful(&daemon, "privileged");
    let mut config = idle(&pod, "c");
    let context = security(&mut config);
    context.privileged = true;
    context.masked_paths = words(&["/proc/kcore"]);
    context.readonly_paths = words(&["/proc/sys"]);
    let localhost = cri::security_profile::ProfileType::Localhost.into();
    let missing =
        cri::SecurityProfile { profile_type: localhost, localhost_ref: "/not/there".into() };
    context.seccomp = Some(missing);
    let id = pod.start(&config);
    assert_eq!(status(&daemon, &id, "Seccomp"), "0");
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = all.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    assert_eq!(status(&daemon, &id, "CapEff"), bounding);
    let mounts = cri.shell(&id, "cat /proc/mounts");
    let of =
        |point: &str| mounts.lines().find(|line| line.split(' ').nth(1) == Some(point)).unwrap();
    assert!(of("/sys").contains(" rw,") && of("/proc").contains(" rw,"), "{mounts}");
    assert!(!mounts.contains("/proc/kcore") && !mounts.contains(" /proc/sys "), "{mounts}");
    cri.shell(
        &id,
        "test -e /dev/mem -o -e /dev/kmsg && mknod /tmp/x b 7 0 && mount -t tmpfs x /home",
    );
    // Beside it an ordinary one has none of it.
    let usual = pod.idle("usual");
    assert!(!denied(&daemon, &usual, "mount -t tmpfs x /home").is_empty());
    assert_eq!(cri.shell(&usual, "ls /dev/mem /dev/kmsg 2>/dev/null || echo none"), "none\n");
    pod.remove();
    // In a pod that says nothing of it there is none.
    let plain = daemon.pod("plain", Network::Node);
    assert!(refused(&daemon, &plain, &config).contains("privileged"));
    plain.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_unmasked_is_what_an_empty_list_means() {
    let Some(daemon) = Daemon::start() else { return };
    let volume = daemon.beside("volume");
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::symlink("/www/index.html", volume.join("link")).unwrap();
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("unmasked", Network::Node);
    let id = pod.idle("c");
    let points = cri.shell(&id, "cut -d' ' -f2 /proc/mounts");
    assert!(!points.lines().any(|point| point.starts_with("/proc/")), "{points}");
    // A link leads to what it hides, and what is not there is no failure.
    let mut config = idle(&pod, "masked");
    config.mounts = vec![cri::Mount {
        container_path: "/volume".into(),
        host_path: volume.to_string_lossy().into_owned(),
        ..Default::default()
    }];
    security(&mut config).masked_paths = words(&["/volume/link", "/none", "/none/at/all", "/etc"]);
    let masked = pod.start(&config);
    assert_eq!(
        cri.shell(
            &masked,
            "cat /www/index.html; echo x > /www/index.html; wc -c < /www/index.html"
        ),
        "0\n"
    );
    assert_eq!(cri.shell(&masked, "echo /etc/*"), "/etc/*\n");
    let relative = {
        let mut config = idle(&pod, "relative");
        security(&mut config).masked_paths = words(&["proc/kcore"]);
        refused(&daemon, &pod, &config)
    };
    assert!(relative.contains("masked_paths"), "{relative}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}
