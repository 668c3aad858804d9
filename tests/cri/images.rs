//! Images through the CRI: found by name, id and digest; removed without harm to who uses them; and
//! their space given back, as it is told.

use shim_proto::runtime_v1 as cri;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::{Image, NAME};
use wherry_tests::leaks::Leaks;
use wherry_tests::registry::Registry;
use wherry_tests::requests::Network;
use wherry_tests::until;

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

/// Blocks and inodes below a folder, as anybody would count them. What is being deleted may go meanwhile.
fn below(folder: &Path, seen: &mut HashSet<u64>) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if !seen.insert(meta.ino()) {
            continue;
        }
        let inner = if meta.is_dir() { below(&path, seen) } else { (0, 0) };
        sum = (sum.0 + meta.blocks() * 512 + inner.0, sum.1 + 1 + inner.1);
    }
    sum
}

/// What the disk says that images take, and what the daemon says.
fn both(daemon: &Daemon) -> [(u64, u64); 2] {
    let mut seen = HashSet::new();
    let parts = ["layers", "content/sha256", "images"];
    let sums = parts.map(|part| below(&daemon.space().path(daemon.root()).join(part), &mut seen));
    let disk = sums.into_iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let told = daemon.cri().image_fs().unwrap().image_filesystems;
    let [told] = told.as_slice() else { panic!("one file system: {told:?}") };
    assert!(told.timestamp > 0);
    assert_eq!(told.fs_id.as_ref().unwrap().mountpoint, daemon.root().to_string_lossy());
    [disk, (told.used_bytes.unwrap().value, told.inodes_used.unwrap().value)]
}

#[test]
fn root_the_space_of_images_is_told_to_the_byte() {
    let Some(daemon) = Daemon::start() else { return };
    let Some(registry) = Registry::start(&daemon) else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let [disk, before] = both(&daemon);
    assert_eq!(disk, before);
    let image = Image::with_layers(&[100_000, 1, 2_000_000]);
    let name = registry.publish("team/app", "1", &image);
    assert_eq!(cri.pull(&name).unwrap(), image.id());
    let [disk, more] = both(&daemon);
    assert_eq!(disk, more);
    assert!(more.0 > before.0 + 2_000_000 && more.1 > before.1);
    // Nothing new, and nothing that fails, changes it.
    assert_eq!(cri.pull(&name).unwrap(), image.id());
    cri.pull("127.0.0.1:5000/team/none:1").unwrap_err();
    assert_eq!(both(&daemon), [more, more]);
    daemon.restart();
    assert_eq!(both(&daemon), [more, more]);
    cri.remove_image(&name).unwrap();
    until("the space of before", || (both(&daemon) == [before, before]).then_some(()));
    cri.remove_image(NAME).unwrap();
    until("no space at all", || (both(&daemon) == [(0, 0), (0, 0)]).then_some(()));
    daemon.forget_worker();
    leaks.assert_same_after(&daemon);
}
