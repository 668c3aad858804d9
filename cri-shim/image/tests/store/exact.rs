//! Unpacked layers against what `umoci unpack` makes of the same image, entry by entry: archives that GNU
//! tar wrote in each of its formats, whiteouts of every kind, and links into layers below.

use crate::real_registry::open;
use crate::support::{Form, Image, image, is_root, layout, skipped};
use crate::tree::{self, Tree, assert_same};
use shim_image::images::Images;
use shim_sys::path::{self, Special};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// The tree that umoci makes; `None` if it is not installed.
pub(crate) fn of_umoci(dir: &Path, image: &Image) -> Option<Tree> {
    let (at, bundle) = (dir.join("layout"), dir.join("bundle"));
    layout(&at, image, "1");
    let name = format!("{}:1", at.display());
    let done = Command::new("umoci").args(["unpack", "--image", &name]).arg(&bundle).output();
    let Ok(done) = done else {
        skipped("umoci is not installed");
        return None;
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(tree::of_folder(&path::open_folder(&bundle.join("rootfs")).unwrap()))
}

/// The tree that GNU tar makes of one archive.
fn of_gnu_tar(dir: &Path, archive: &[u8]) -> Tree {
    let (file, into) = (dir.join("archive.tar"), dir.join("gnu"));
    std::fs::write(&file, archive).unwrap();
    std::fs::create_dir(&into).unwrap();
    let mut command = Command::new("tar");
    command.args(["--extract", "--numeric-owner", "--same-permissions", "--same-owner"]);
    command.arg("--file").arg(&file).arg("--directory").arg(&into);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    tree::of_folder(&path::open_folder(&into).unwrap())
}

/// What we make of it, by an import of the same layout.
pub(crate) async fn ours(dir: &Path, image: &Image) -> Result<(Images, Tree), String> {
    layout(&dir.join("layout"), image, "1");
    let (images, _pids) = open(dir);
    let found = images.import(dir.join("layout"), None).await.map_err(|e| e.chain())?;
    let tree = tree::of_image(&images, &found[0]);
    Ok((images, tree))
}

async fn assert_exact(layers: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let forms = [Form::Gzip, Form::Plain];
    let packed = layers.iter().enumerate().map(|(at, layer)| (forms[at % 2], layer.clone()));
    let image = image(&packed.collect::<Vec<_>>());
    let (_images, here) = ours(dir.path(), &image).await.unwrap();
    let Some(there) = of_umoci(dir.path(), &image) else { return };
    assert_same(&here, &there);
}

/// An archive by GNU tar of a folder, with these options and members.
fn tar(folder: &Path, options: &[&str], members: &[&str]) -> Vec<u8> {
    let done = Command::new("tar")
        .args(["--create", "--xattrs", "--xattrs-include=*", "--numeric-owner"])
        .args(options)
        .arg("--directory")
        .arg(folder)
        .args(members)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn touch(at: &Path, text: &str, mode: u32, owner: u32) {
    std::fs::write(at, text).unwrap();
    chown(at, Some(owner), Some(owner.saturating_add(1))).unwrap();
    std::fs::set_permissions(at, PermissionsExt::from_mode(mode)).unwrap();
}

fn time(at: &Path, seconds: i64, nanos: u32) {
    let (folder, name) =
        (path::open_folder(at.parent().unwrap()).unwrap(), at.file_name().unwrap());
    let meta = path::look(&folder, name.as_bytes()).unwrap().unwrap();
    let owner = (meta.uid, meta.gid);
    path::set_by_name(&folder, name.as_bytes(), owner, None, (seconds, nanos)).unwrap();
}

/// Attributes of a file: a user's, an empty one, and what file capabilities are kept in (version 2,
/// `CAP_NET_BIND_SERVICE` permitted and effective).
fn attributes(at: &Path) {
    let file = std::fs::File::options().write(true).open(at).unwrap();
    path::set_xattr(&file, b"user.test", b"one\0two").unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    path::set_xattr(&file, b"security.capability", &capability).unwrap();
}

fn sparse(at: &Path) {
    let file = std::fs::File::create(at).unwrap();
    for (offset, length) in [(0u64, 5usize), (1 << 20, 4_096), (3 << 20, 10_000), (9 << 20, 1)] {
        let bytes = vec![b'x'; length];
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, offset).unwrap();
    }
    file.set_len(20 << 20).unwrap();
}

/// Everything that a folder can hold.
fn furnish(root: &Path, mark: &str) {
    let at = |name: &str| root.join(name);
    for (folder, mode) in [("etc", 0o755), ("tmp", 0o1777), ("secret", 0o700), ("empty", 0o2750)] {
        std::fs::create_dir_all(at(folder)).unwrap();
        std::fs::set_permissions(at(folder), PermissionsExt::from_mode(mode)).unwrap();
    }
    touch(&at("etc/plain"), mark, 0o644, 0);
    touch(&at("etc/empty"), "", 0o600, 1000);
    touch(&at("etc/setuid"), "#!", 0o4755, 0);
    touch(&at("etc/setgid"), "#!", 0o2711, 100_000);
    touch(&at("etc/large-ids"), "", 0o640, 4_000_000_000);
    touch(&at("etc/attributes"), "x", 0o755, 7);
    attributes(&at("etc/attributes"));
    std::fs::hard_link(at("etc/plain"), at("secret/plain-too")).unwrap();
    std::fs::hard_link(at("etc/attributes"), at("etc/attributes-too")).unwrap();
    symlink("plain", at("etc/link")).unwrap();
    symlink("/nowhere/at/all", at("etc/dangling")).unwrap();
    symlink("../".repeat(60), at("etc/far")).unwrap();
    lchown(at("etc/link"), Some(5), Some(6)).unwrap();
    let folder = path::open_folder(root).unwrap();
    for (name, special) in [
        (b"null".as_slice(), Special::Character(1, 3)),
        (b"loop", Special::Block(7, 0)),
        (b"pipe", Special::Fifo),
    ] {
        path::make_special(&folder, name, special).unwrap();
    }
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    let long = format!("{}/{}", "d".repeat(120), "e".repeat(200));
    std::fs::create_dir_all(at(&long)).unwrap();
    touch(&at(&long).join("f".repeat(150)), "deep", 0o644, 0);
    std::fs::hard_link(at(&long).join("f".repeat(150)), at("etc/deep-too")).unwrap();
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9 \xff")), "latin").unwrap();
    std::fs::write(at("with space\nand line"), "x").unwrap();
    sparse(&at("sparse"));
    for (name, seconds, nanos) in [
        ("etc/plain", 1_700_000_000, 123_456_789),
        ("etc/empty", 0, 0),
        ("etc/link", 1_234_567_890, 987_654_321),
        ("etc/setuid", 1, 1),
        ("null", 5, 500_000_000),
        ("tmp", 1_600_000_000, 999_999_999),
    ] {
        time(&at(name), seconds, nanos);
    }
}

#[tokio::test]
async fn root_every_posix_format_unpacks_as_umoci_unpacks_it() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    furnish(source.path(), "first");
    let formats = ["0.0", "0.1", "1.0"].map(|version| {
        let sparse = format!("--sparse-version={version}");
        let times = "--pax-option=delete=atime,delete=ctime";
        tar(source.path(), &["--format=pax", times, "--sparse", &sparse], &["."])
    });
    for format in &formats {
        assert_exact(std::slice::from_ref(format)).await;
    }
    // Over one another, the last one counts.
    assert_exact(&formats).await;
}

#[tokio::test]
async fn root_gnus_own_formats_unpack_as_gnu_tar_unpacks_them() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    furnish(source.path(), "first");
    // More pieces than fit into one header, and into the ones after it.
    let many = std::fs::File::create(source.path().join("many")).unwrap();
    for number in 0..100u64 {
        let offset = number * (128 << 10);
        std::os::unix::fs::FileExt::write_all_at(&many, &[7; 4_096], offset).unwrap();
    }
    for options in [["--format=gnu", "--sparse"], ["--format=gnu", "--hard-dereference"]] {
        let dir = tempfile::tempdir().unwrap();
        let archive = tar(source.path(), &[&options[..], &["--no-xattrs"]].concat(), &["."]);
        let there = of_gnu_tar(dir.path(), &archive);
        let image = image(&[(Form::Zstd, archive)]);
        let (_images, here) = ours(dir.path(), &image).await.unwrap();
        assert_same(&here, &there);
    }
}

/// An entry that no tar writes: kind, name, link.
pub(crate) fn entry(
    builder: &mut ::tar::Builder<Vec<u8>>,
    kind: ::tar::EntryType,
    name: &str,
    link: &str,
) {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(1_000);
    header.set_size(0);
    if link.is_empty() {
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    } else {
        builder.append_link(&mut header, name, link).unwrap();
    }
}

pub(crate) fn archive(build: impl FnOnce(&mut ::tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

use ::tar::EntryType::{Directory, Link, Regular, Symlink};

/// Three layers: everything, a second set of it without folders' own entries, whiteouts and replacements.
fn layered() -> Vec<Vec<u8>> {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    furnish(first.path(), "first");
    for folder in ["hidden/inner", "opaque/inner", "cleared", "becomes-file", "stays"] {
        std::fs::create_dir_all(first.path().join(folder)).unwrap();
        std::fs::write(first.path().join(folder).join("old"), "old").unwrap();
    }
    std::fs::set_permissions(first.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let stays = first.path().join("stays");
    std::fs::set_permissions(&stays, PermissionsExt::from_mode(0o3751)).unwrap();
    path::set_xattr(path::open_folder(&stays).unwrap(), b"user.folder", b"kept").unwrap();
    chown(&stays, Some(12), Some(13)).unwrap();
    time(&stays, 1_111_111_111, 222_222_222);
    std::fs::write(second.path().join("becomes-folder"), "x").unwrap();
    for name in ["stays/new", "etc/plain", "etc/only-second"] {
        let at = second.path().join(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        touch(&at, "second", 0o604, 3);
    }
    let members = ["stays/new", "etc/plain", "etc/only-second", "becomes-folder"];
    let pax = "--format=pax";
    let third = archive(|builder| {
        for name in [".wh.hidden", "etc/.wh.empty", "etc/.wh.link", ".wh.null", ".wh.nothing"] {
            entry(builder, Regular, name, "");
        }
        entry(builder, Regular, "opaque/.wh..wh..opq", "");
        entry(builder, Regular, "opaque/new", "");
        entry(builder, Directory, "cleared", "");
        entry(builder, Regular, "cleared/.wh..wh..opq", "");
        entry(builder, Regular, "becomes-file", "");
        entry(builder, Directory, "becomes-folder/", "");
        entry(builder, Regular, "becomes-folder/in", "");
        entry(builder, Symlink, "etc/setuid", "plain");
        entry(builder, Link, "etc/another", "etc/setuid");
    });
    vec![tar(first.path(), &[pax], &["."]), tar(second.path(), &[pax], &members), third]
}

#[tokio::test]
async fn root_layers_over_one_another_are_as_umoci_unpacks_them() {
    if !is_root() {
        return;
    }
    assert_exact(&layered()).await;
}
