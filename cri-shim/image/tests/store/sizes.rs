//! What images are told to take on the disk, against a walk of the folders by somebody else: after pulls,
//! after removals, after a restart. To the byte and to the inode.

use crate::exact::{archive, entry};
use crate::real_registry::open;
use crate::registry::Registry;
use crate::support::{Form, image, is_root, settings, two_layers};
use ::tar::EntryType::{Directory, Link, Regular};
use shim_image::auth::Auth;
use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Blocks and inodes below a folder, itself not among them.
fn below(folder: &Path, seen: &mut HashSet<(u64, u64)>) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        sum = (sum.0 + meta.blocks() * 512, sum.1 + 1);
        if meta.is_dir() {
            let inner = below(&path, seen);
            sum = (sum.0 + inner.0, sum.1 + inner.1);
        }
    }
    sum
}

/// Everything of images below a store.
fn on_disk(root: &Path) -> (u64, u64) {
    let mut seen = HashSet::new();
    let parts = ["layers", "content/sha256", "images"];
    let sums = parts.map(|name| below(&settings(root).root.join(name), &mut seen));
    sums.into_iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

#[tokio::test]
async fn root_usage_is_what_the_disk_says() {
    if !is_root() {
        return;
    }
    // Hard links, links into a layer below, holes, names that come twice, whiteouts, folders of nobody.
    let base = archive(|b| {
        entry(b, Directory, "usr/", "");
        for number in 0..300 {
            entry(b, Regular, &format!("usr/many/{number:0200}"), "");
        }
        entry(b, Regular, "one", "");
        entry(b, Link, "two", "one");
        entry(b, Regular, "one", "");
    });
    let top = archive(|b| {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(300_000);
        header.set_mode(0o644);
        b.append_data(&mut header, "data/file", vec![5u8; 300_000].as_slice()).unwrap();
        entry(b, Link, "below", "one");
        entry(b, Regular, "usr/.wh.many", "");
    });
    let registry = Arc::new(Registry::default());
    registry.push("a", "1", &image(&[(Form::Gzip, base.clone()), (Form::Zstd, top)]));
    registry.push("b", "1", &image(&[(Form::Gzip, base)]));
    registry.push("c", "1", &two_layers());
    let host = registry.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let (images, _pids) = open(dir.path());
    assert_eq!(images.usage(), (0, 0));
    let mut last = (0, 0);
    for name in ["a", "b", "c"] {
        let name = format!("{host}/{name}:1");
        let arrived = images.pull(&name, &Auth::Anonymous, None).await.unwrap();
        assert!(arrived.image.size > 0);
        assert_eq!(images.usage(), on_disk(dir.path()), "after {name}");
        assert!(images.usage() > last);
        last = images.usage();
    }
    drop(images);
    let (images, _pids) = open(dir.path());
    assert_eq!(images.usage(), on_disk(dir.path()), "after a restart");
    for name in ["a", "c", "b"] {
        let name = format!("{host}/{name}:1");
        images.remove(&name, BTreeSet::new()).await.unwrap();
        images.collect_now(&BTreeSet::new()).unwrap();
        assert_eq!(images.usage(), on_disk(dir.path()), "after the removal of {name}");
        assert!(images.usage() < last);
        last = images.usage();
    }
    assert_eq!(last, (0, 0));
}
