//! Images through the CRI: found by name, id and digest; removed without harm to who uses them; and
//! their space given back.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;

#[test]
fn root_an_image_is_found_by_every_name() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let image = cri.image(NAME).unwrap().unwrap();
    assert_eq!(image.repo_tags, [NAME]);
    assert!(image.size > 0 && image.id.starts_with("sha256:"));
    assert_eq!(cri.images().unwrap().len(), 1);
    for name in [&image.id, image.id.trim_start_matches("sha256:")]
        .into_iter()
        .chain(image.repo_digests.iter().map(String::as_str))
    {
        assert_eq!(cri.image(name).unwrap().unwrap_or_default().id, image.id, "{name}");
    }
    assert_eq!(cri.image("localhost/none:1").unwrap(), None);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_removed_image_gives_its_space_back() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let name = "localhost/second:1";
    daemon.import(name, &["IMAGE=second"]);
    assert_eq!(cri.images().unwrap().len(), 2);
    for _ in 0..2 {
        cri.remove_image(name).unwrap();
        assert_eq!(cri.image(name).unwrap(), None);
    }
    // The other one, of the same layer, still works.
    let pod = daemon.pod("left", Network::Node);
    let id = pod.run_in("c", &["sh", "-c", "test $IMAGE = test"]);
    assert_eq!(cri.ended(&id).exit_code, 0);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_container_keeps_its_removed_image() {
    let Some(daemon) = Daemon::start() else { return };
    let cri = daemon.cri();
    let pod = daemon.pod("user", Network::Node);
    let id = pod.idle("c");
    cri.remove_image(NAME).unwrap();
    assert_eq!(cri.image(NAME).unwrap(), None);
    // Also over a restart, when what nobody uses is collected.
    daemon.restart();
    assert_eq!(cri.shell(&id, "ls /www"), "index.html\n");
    assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    pod.remove();
    assert_eq!(cri.images().unwrap().len(), 0);
}
