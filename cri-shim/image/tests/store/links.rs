//! Hard links to files of layers below: what they come to, against `umoci unpack`, which unpacks all layers
//! into one folder; what is refused with a sentence; that an export still makes the very archive again.

use crate::exact::{archive, entry, of_umoci, ours};
use crate::real_registry::open;
use crate::support::{Form, Image, image, is_root};
use crate::tree::{self, Tree, assert_same};
use ::tar::EntryType::{Directory, Link, Regular, Symlink};
use shim_image::archive::export::To;
use std::os::unix::fs::MetadataExt;

fn file(builder: &mut ::tar::Builder<Vec<u8>>, name: &str, text: &str, mode: u32) {
    let mut header = ::tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_uid(1_000);
    header.set_gid(1_001);
    header.set_mtime(1_234_567_890);
    header.set_size(text.len() as u64);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attributes = [
        ("SCHILY.xattr.user.test", b"kept".as_slice()),
        ("SCHILY.xattr.security.capability", &capability),
        ("mtime", b"1234567890.123456789"),
    ];
    builder.append_pax_extensions(attributes).unwrap();
    builder.append_data(&mut header, name, text.as_bytes()).unwrap();
}

/// What a base layer of these tests holds.
fn base() -> Vec<u8> {
    archive(|b| {
        for folder in ["./", "usr/", "usr/lib/", "etc/", "hidden/", "opaque/"] {
            entry(b, Directory, folder, "");
        }
        for name in ["usr/lib/one", "etc/two", "etc/three", "hidden/four", "opaque/five"] {
            file(b, name, name, 0o4755);
        }
        entry(b, Symlink, "lib", "usr/lib");
        entry(b, Symlink, "abs", "/usr/lib");
        entry(b, Symlink, "out", "/proc/self/root/etc");
        entry(b, Symlink, "etc/link", "two");
    })
}

fn of(layers: &[Vec<u8>]) -> Image {
    image(&layers.iter().map(|layer| (Form::Gzip, layer.clone())).collect::<Vec<_>>())
}

async fn unpacked(layers: &[Vec<u8>]) -> Result<Tree, String> {
    let dir = tempfile::tempdir().unwrap();
    ours(dir.path(), &of(layers)).await.map(|(_images, tree)| tree)
}

/// Here and as umoci makes it; `None` without umoci.
async fn both(layers: &[Vec<u8>]) -> Option<[Tree; 2]> {
    let dir = tempfile::tempdir().unwrap();
    let (_images, here) = ours(dir.path(), &of(layers)).await.unwrap();
    Some([here, of_umoci(dir.path(), &of(layers))?])
}

/// Takes the time out of folders, which no entry of the layer sets: umoci leaves what came last.
fn without_times(trees: [Tree; 2], folders: &[&str]) -> [Tree; 2] {
    trees.map(|mut tree| {
        for name in folders {
            let words: Vec<String> = tree[*name].split(' ').map(str::to_owned).collect();
            assert_eq!(words[0], "folder");
            tree.insert((*name).to_owned(), [&words[..3], &words[4..]].concat().join(" "));
        }
        tree
    })
}

#[tokio::test]
async fn root_links_into_layers_below_are_as_umoci_makes_them() {
    if !is_root() {
        return;
    }
    let second = archive(|b| {
        // Straight, through links on the way, to a link of this layer, in a folder that nobody described.
        entry(b, Link, "etc/again", "etc/two");
        entry(b, Link, "etc/more", "etc/again");
        entry(b, Link, "by-link", "lib/one");
        entry(b, Link, "by-absolute-link", "abs/one");
        entry(b, Link, "new/folder/deep", "./etc/three");
        entry(b, Regular, "etc/.wh.three", "");
    });
    let third = archive(|b| {
        entry(b, Link, "third", "by-link");
        entry(b, Link, "fourth", "etc/two");
        entry(b, Link, "fifth", "new/folder/deep");
    });
    let new = [".", "./new", "./new/folder"];
    let Some(trees) = both(&[base(), second.clone()]).await else { return };
    let [here, there] = without_times(trees, &new);
    assert_same(&here, &there);
    // A copy is another file than the one below, as it is in a container: only the new names are one.
    let Some(trees) = both(&[base(), second, third]).await else { return };
    let apart = |tree: Tree| -> Tree {
        let cut = |text: String| text.split(" one with ").next().unwrap().to_owned();
        tree.into_iter().map(|(name, text)| (name, cut(text))).collect()
    };
    let [here, there] = without_times(trees, &new).map(apart);
    assert_same(&here, &there);
}

#[tokio::test]
async fn root_later_entries_of_the_layer_count_more() {
    if !is_root() {
        return;
    }
    // The name is taken by something else, its folder too; the file below gets a new content of its own.
    let second = archive(|b| {
        entry(b, Link, "one", "etc/two");
        entry(b, Regular, "one", "");
        entry(b, Link, "gone/two", "etc/two");
        entry(b, Regular, "gone", "");
        entry(b, Link, "stays", "etc/three");
        file(b, "etc/three", "new", 0o600);
        entry(b, Link, "same", "usr/lib/one");
        entry(b, Link, "same", "usr/lib/one");
    });
    let Some(trees) = both(&[base(), second]).await else { return };
    let [here, there] = without_times(trees, &["."]);
    assert_same(&here, &there);
}

#[tokio::test]
async fn root_what_is_hidden_missing_or_no_file_is_refused_in_a_sentence() {
    if !is_root() {
        return;
    }
    let hiding = archive(|b| {
        entry(b, Regular, ".wh.hidden", "");
        entry(b, Regular, "opaque/.wh..wh..opq", "");
    });
    for (target, word) in [
        ("nothing", "neither in this layer nor in one below"),
        ("etc/two/below", "neither in this layer nor in one below"),
        ("hidden/four", "neither in this layer nor in one below"),
        ("opaque/five", "neither in this layer nor in one below"),
        ("out/passwd", "neither in this layer nor in one below"),
        ("etc/link", "not a regular file"),
        ("etc", "not a regular file"),
        ("../etc/two", "leaves the layer"),
        ("", "a folder"),
    ] {
        let top = archive(|b| entry(b, Link, "new", if target.is_empty() { "." } else { target }));
        let told = unpacked(&[base(), hiding.clone(), top]).await.unwrap_err();
        assert!(told.contains(word), "{target}: {told}");
    }
    // By the layer itself.
    for hides in ["etc/.wh.two", ".wh.etc", "etc/.wh..wh..opq", ".wh..wh..opq"] {
        let top = archive(|b| {
            entry(b, Regular, hides, "");
            entry(b, Link, "new", "etc/two");
        });
        let told = unpacked(&[base(), top]).await.unwrap_err();
        assert!(told.contains("which this layer hides"), "{hides}: {told}");
    }
    // A lowest layer has nobody to borrow from, a link of its own leads nowhere.
    let alone = archive(|b| entry(b, Link, "new", "etc/two"));
    assert!(unpacked(&[alone]).await.unwrap_err().contains("nor in one below"));
    let link = archive(|b| {
        entry(b, Symlink, "way", "etc");
        entry(b, Link, "new", "way/two");
    });
    assert!(unpacked(&[base(), link]).await.unwrap_err().contains("whose folder is none"));
}

#[tokio::test]
async fn root_an_export_makes_the_very_archives_again() {
    if !is_root() {
        return;
    }
    let second = archive(|b| {
        entry(b, Link, "etc/again", "etc/two");
        file(b, "own", "own", 0o644);
        entry(b, Link, "by-link", "lib/one");
    });
    let layers = [base(), second];
    let dir = tempfile::tempdir().unwrap();
    let (images, here) = ours(dir.path(), &of(&layers)).await.unwrap();
    let id = images.list()[0].id.to_string();
    // The copy has the file's old name too: one file, as the archive says.
    let top = &images.layer_folders(&images.list()[0])[0];
    let inode = |name: &str| std::fs::metadata(top.join(name)).unwrap().ino();
    assert_eq!(inode("etc/two"), inode("etc/again"));
    let at = dir.path().join("again");
    images.export(vec![id], To::OciLayout(at.clone())).await.unwrap();
    for layer in &layers {
        let name = crate::support::digest(layer).replace("sha256:", "blobs/sha256/");
        assert!(std::fs::read(at.join(name)).unwrap() == *layer);
    }
    let fresh = tempfile::tempdir().unwrap();
    let (other, _pids) = open(fresh.path());
    let back = other.import(at, None).await.unwrap();
    assert_same(&tree::of_image(&other, &back[0]), &here);
}
