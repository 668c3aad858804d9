//! Users and groups: a number is a number, a name must be the image's, and nothing that means neither is
//! ever root. Groups are the request's, with the image's or without them, by policy.

use super::{denied, idle, number, refused};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, security};

#[test]
fn root_an_images_user_is_a_number_or_a_name_and_never_root_by_mistake() {
    let Some(daemon) = Daemon::start() else { return };
    let cri = daemon.cri();
    let pod = daemon.pod("image", Network::Node);
    let with = |user: &str| {
        let name =
            format!("localhost/user:as-{}", user.escape_unicode()).replace(['\\', '{', '}'], "");
        daemon.import_with(&name, &serde_json::json!({"User": user, "Cmd": ["sh"]}));
        let mut config = idle(&pod, &name.replace(['/', ':'], "-"));
        config.image.as_mut().unwrap().image = name;
        config
    };
    for (user, shown) in [
        ("1000", "1000\n1000\n1000 2000\n"),
        ("user", "1000\n1000\n1000 2000\n"),
        ("user:extra", "1000\n2000\n2000\n"),
        ("77:88", "77\n88\n88\n"),
        ("77:extra", "77\n2000\n2000\n"),
        ("", "0\n0\n0\n"),
    ] {
        assert_eq!(cri.shell(&pod.start(&with(user)), "id -u; id -g; id -G"), shown, "{user:?}");
    }
    for user in [
        "+0",
        "-1",
        "4294967295",
        "4294967296",
        "0x0",
        " 1",
        "1 ",
        ":1",
        "nobody-of-here",
        "77:nobody",
        "77:+0",
        &"9".repeat(40),
    ] {
        let text = refused(&daemon, &pod, &with(user));
        assert!(text.contains("/etc/passwd") || text.contains("/etc/group"), "{user:?}: {text}");
    }
    pod.remove();
}

#[test]
fn root_what_a_request_cannot_mean_is_refused_by_its_field() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("refused", Network::Node);
    let with = |change: &dyn Fn(&mut cri::LinuxContainerSecurityContext)| {
        let mut config = idle(&pod, "c");
        change(security(&mut config));
        refused(&daemon, &pod, &config)
    };
    assert!(with(&|context| context.run_as_group = Some(number(5))).contains("run_as_group"));
    assert!(with(&|context| context.run_as_user = Some(number(-1))).contains("run_as_user"));
    assert!(with(&|context| context.run_as_user = Some(number(1 << 32))).contains("run_as_user"));
    assert!(
        with(&|context| context.supplemental_groups = vec![-5]).contains("supplemental_groups")
    );
    assert!(with(&|context| context.run_as_username = "+0".into()).contains("/etc/passwd"));
    let both = with(&|context| {
        context.run_as_user = Some(number(1));
        context.run_as_username = "root".into();
    });
    assert!(both.contains("run_as_username"), "{both}");
    let policy = with(&|context| context.supplemental_groups_policy = 7);
    assert!(policy.contains("supplemental_groups_policy"), "{policy}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_groups_are_merged_or_strictly_the_requests_and_told_as_they_are() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("groups", Network::Node);
    for (name, policy, wanted) in [
        ("merge", cri::SupplementalGroupsPolicy::Merge, vec![1000, 1234, 2000, 5678]),
        ("strict", cri::SupplementalGroupsPolicy::Strict, vec![1000, 1234, 5678]),
    ] {
        let mut config = idle(&pod, name);
        security(&mut config).run_as_user = Some(number(1000));
        security(&mut config).supplemental_groups = vec![5678, 1234];
        security(&mut config).supplemental_groups_policy = policy.into();
        let id = pod.start(&config);
        let shown: Vec<String> = wanted.iter().map(i64::to_string).collect();
        assert_eq!(cri.shell(&id, "id -G").trim(), shown.join(" "));
        let of_first = cri.shell(&id, "grep ^Groups: /proc/1/status");
        assert_eq!(of_first.split_whitespace().skip(1).collect::<Vec<_>>(), shown);
        let user = cri.status(&id).user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 1000, wanted));
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_group_gives_what_a_volume_gives_it_and_takes_what_it_takes() {
    let Some(daemon) = Daemon::start() else { return };
    let data = daemon.beside("data");
    std::fs::create_dir(&data).unwrap();
    // As the kubelet prepares a volume for an fsGroup; and a file that is closed to one group alone.
    daemon.space().shell(&format!(
        "chown 0:4444 {0}; chmod 2770 {0}; echo x > {0}/closed; chown 0:1000 {0}/closed; chmod 604 {0}/closed",
        data.display()
    ));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("volume", Network::Node);
    let config = |name: &str, groups: &[i64]| {
        let mut config = idle(&pod, name);
        config.mounts = vec![cri::Mount {
            container_path: "/data".into(),
            host_path: data.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        security(&mut config).run_as_username = "user".into();
        security(&mut config).supplemental_groups = groups.to_vec();
        config
    };
    let id = pod.start(&config("member", &[4444]));
    assert_eq!(cri.shell(&id, "touch /data/new; stat -c %u:%g /data/new"), "1000:4444\n");
    assert!(denied(&daemon, &id, "cat /data/closed").contains("Permission denied"));
    let id = pod.start(&config("stranger", &[]));
    assert!(denied(&daemon, &id, "ls /data/").contains("Permission denied"));
    std::fs::remove_file(data.join("new")).unwrap();
    pod.remove();
    leaks.assert_same_after(&daemon);
}
