//! Image volumes and volumes that an image declares: read-only roots of other images, whole or a folder of
//! them, and writable folders of the container's own; in a user namespace with the pod's ids.

use super::{denied, idle, refused};
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::images;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, security};

fn volume(at: &str, sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: at.into(),
        readonly: true,
        image: Some(cri::ImageSpec { image: images::NAME.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

/// A pod, in the node's user namespace or in one of its own.
fn pod<'d>(daemon: &'d Daemon, name: &str, own: bool) -> Pod<'d> {
    let mut config = requests::pod(name, Network::Node, &daemon.logs());
    let ids = vec![cri::IdMapping { host_id: 700_000, container_id: 0, length: 65_536 }];
    let user =
        cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids };
    let linux = config.linux.get_or_insert_default();
    let options =
        linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default();
    options.userns_options = own.then_some(user);
    Pod::run(daemon, config)
}

#[test]
fn root_an_image_is_a_volume_read_only_and_executable() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    for own in [false, true] {
        let pod = pod(&daemon, "volume", own);
        let mut config = idle(&pod, "c");
        config.mounts =
            vec![volume("/whole", ""), volume("/part", "etc"), volume("/inner", "home/")];
        let id = pod.start(&config);
        assert_eq!(
            cri.shell(
                &id,
                "/whole/bin/busybox echo ran; stat -c %u:%g /whole/bin/busybox /part/passwd"
            ),
            "ran\n0:0\n0:0\n"
        );
        assert_eq!(cri.shell(&id, "ls /inner | wc -l"), "0\n");
        for path in ["/whole/x", "/part/passwd", "/inner/x"] {
            assert!(
                denied(&daemon, &id, &format!("echo x >> {path}")).contains("Read-only"),
                "{path}"
            );
        }
        let shown = cri.status(&id).mounts.remove(0).image.unwrap();
        assert_eq!(shown.image_ref, cri.image(images::NAME).unwrap().unwrap().id);
        pod.remove();
    }
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_folder_of_the_host_has_no_part_of_an_image() {
    let Some(daemon) = Daemon::start() else { return };
    let pod = daemon.pod("beside", Network::Node);
    std::fs::write(daemon.logs().join("one.txt"), "one").unwrap();
    let mut config = idle(&pod, "c");
    let file = cri::Mount {
        container_path: "/one.txt".into(),
        host_path: daemon.logs().join("one.txt").to_str().unwrap().into(),
        image_sub_path: "nested/one.txt".into(),
        ..Default::default()
    };
    config.mounts = vec![volume("/part", "etc"), file];
    let id = pod.start(&config);
    assert_eq!(daemon.cri().shell(&id, "cat /one.txt"), "one");
    pod.remove();
}

#[test]
fn root_an_image_volume_that_cannot_be_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("refused", Network::Node);
    for (change, wanted) in [
        (cri::Mount { readonly: false, ..volume("/v", "") }, "mounts[0].readonly"),
        (cri::Mount { host_path: "/tmp".into(), ..volume("/v", "") }, "mounts[0].host_path"),
    ] {
        let mut config = idle(&pod, "c");
        config.mounts = vec![change];
        assert!(refused(&daemon, &pod, &config).contains(wanted));
    }
    for sub_path in
        ["none", "../../../etc", "/etc/../..", "etc/../../..", "bin/busybox/x", "etc/passwd"]
    {
        let mut config = idle(&pod, "c");
        config.mounts = vec![volume("/v", sub_path)];
        let answer = cri.create(&pod.id, &config, &pod.config);
        let text = match answer {
            Err(refused) => refused.message().to_owned(),
            Ok(id) => {
                let failed = cri.start(&id).map(|()| cri.shell(&id, "ls -la /v; ls /v/"));
                cri.remove(&id).unwrap();
                failed.unwrap_err().message().to_owned()
            }
        };
        assert!(
            text.contains("ImageVolumeMountFailed") || text.contains("image_sub_path"),
            "{sub_path}: {text}"
        );
    }
    let mut config = idle(&pod, "missing");
    let mut missing = volume("/v", "");
    missing.image.as_mut().unwrap().image = "localhost/none:here".into();
    config.mounts = vec![missing];
    let id = cri.create(&pod.id, &config, &pod.config);
    let text = id.and_then(|id| cri.start(&id)).unwrap_err().message().to_owned();
    assert!(text.contains("localhost/none:here"), "{text}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_declared_volume_is_the_containers_own() {
    let Some(daemon) = Daemon::start() else { return };
    let name = "localhost/volumes:test";
    let volumes = serde_json::json!({"/etc": {}, "/new/deep": {}, "/../../up": {}, "relative": {}});
    daemon.import_with(name, &serde_json::json!({"Cmd": ["sh"], "Volumes": volumes}));
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    for own in [false, true] {
        let pod = pod(&daemon, "declared", own);
        let mut config = idle(&pod, "c");
        config.image.as_mut().unwrap().image = name.into();
        security(&mut config).readonly_rootfs = true;
        let id = pod.start(&config);
        // With the image's content, writable though the root is not, of the pod's root.
        cri.shell(
            &id,
            "grep -q root /etc/passwd && touch /etc/x /new/deep/x && ! touch /x 2>/dev/null",
        );
        assert_eq!(cri.shell(&id, "stat -c %u:%g /new /new/deep /etc"), "0:0\n".repeat(3));
        pod.remove();
    }
    leaks.assert_same_after(&daemon);
}
