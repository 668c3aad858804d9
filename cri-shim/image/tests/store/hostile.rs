//! Archives that strangers made to break out, to forge or to exhaust (`reliability.md` §2.1, I1 to I13): each
//! is refused, or harmless, and nothing outside of its layer changes.

use crate::exact::{archive, entry};
use crate::support::is_root;
use crate::tree::{self, Tree};
use ::tar::EntryType::{self, Block, Char, Directory, Fifo, Link, Regular, Symlink};
use shim_image::decode::Compression;
use shim_image::layer::unpack_stream;
use shim_image::layers::dir::Layers;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

type Builder = ::tar::Builder<Vec<u8>>;

/// An entry with a name and a link as they are, which no decent writer would write.
fn raw(builder: &mut Builder, kind: EntryType, name: &[u8], link: &[u8]) {
    header(builder, kind, name, |header| {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    });
}

fn header(
    builder: &mut Builder,
    kind: EntryType,
    name: &[u8],
    edit: impl FnOnce(&mut ::tar::Header),
) {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o6777);
    header.set_mtime(5);
    header.set_size(0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    edit(&mut header);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
}

/// An entry with extended records.
fn extended(builder: &mut Builder, records: &[(&str, &[u8])], kind: EntryType, name: &str) {
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    raw(builder, kind, name.as_bytes(), b"");
}

/// What a layer's archive comes to, or why not; beside it a folder that must stay as it is.
struct Scene {
    dir: tempfile::TempDir,
    canary: Tree,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(outside.join("folder")).unwrap();
        std::fs::write(outside.join("file"), "secret").unwrap();
        symlink("file", outside.join("link")).unwrap();
        let canary = canary(dir.path());
        Self { dir, canary }
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }

    /// Unpacks a layer by itself, with its root two folders below the canary's.
    fn unpack(&self, compression: Compression, bytes: &[u8]) -> Result<Tree, String> {
        let layers = Layers::open(&self.dir.path().join("store")).unwrap();
        let making = layers.begin().unwrap();
        let done = unpack_stream(bytes, compression, &making, "test");
        let tree = done.map(|_| tree::of_folder(&making.files().unwrap()));
        assert_eq!(canary(self.dir.path()), self.canary);
        tree.map_err(|error| error.chain())
    }

    fn plain(&self, build: impl FnOnce(&mut Builder)) -> Result<Tree, String> {
        self.unpack(Compression::Plain, &archive(build))
    }
}

fn canary(dir: &Path) -> Tree {
    tree::of_folder(&shim_sys::path::open_folder(&dir.join("outside")).unwrap())
}

#[test]
fn root_names_do_not_leave_the_layer() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for name in
        ["..", "../", "a/..", "a/../../b", "../outside/file", "./../x", "/../x", ".wh...", ".wh.."]
    {
        for kind in [Regular, Directory, Fifo] {
            let told = scene.plain(|b| raw(b, kind, name.as_bytes(), b"")).unwrap_err();
            assert!(
                told.contains("leaves the layer") || told.contains("whiteout"),
                "{name}: {told}"
            );
        }
    }
    // Another spelling of a name inside.
    for name in ["/etc/x", "//etc//x", "./etc/./x", "etc/x/"] {
        let tree = scene.plain(|b| raw(b, Directory, name.as_bytes(), b"")).unwrap();
        assert!(tree.contains_key("./etc/x"), "{name}: {tree:?}");
    }
    let long = format!("{}x", "a/".repeat(300));
    let told =
        scene.plain(|b| extended(b, &[("path", long.as_bytes())], Regular, "x")).unwrap_err();
    assert!(told.contains("leaves the layer"), "{told}");
    let bad: [&[u8]; 3] = [&[b'a'; 256], &[b'a'; 5_000], b"a\0b"];
    for bad in bad {
        assert!(scene.plain(|b| extended(b, &[("path", bad)], Regular, "x")).is_err());
    }
}

#[test]
fn root_the_layers_root_is_a_folder_and_stays_one() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for name in [".", "/", "./", "//"] {
        for kind in [Symlink, Link, Fifo, Block] {
            let told = scene.plain(|b| raw(b, kind, name.as_bytes(), scene.outside().as_bytes()));
            assert!(told.is_err(), "{name} {kind:?}: {told:?}");
        }
        let tree = scene.plain(|b| raw(b, Directory, name.as_bytes(), b"")).unwrap();
        assert!(tree["."].starts_with("folder 46777"), "{name}: {tree:?}");
    }
}

#[test]
fn root_links_lead_nowhere() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.outside();
    let out = outside.as_bytes();
    for then in ["link/file", "link/new", "link/folder", "link/../x"] {
        for kind in [Regular, Directory, Symlink, Link, Char, Fifo] {
            let told = scene.plain(|b| {
                raw(b, Symlink, b"link", out);
                raw(b, kind, then.as_bytes(), b"target");
            });
            assert!(told.is_err(), "{then} {kind:?}: {told:?}");
        }
    }
    // A hard link to a symbolic link is one more name of the link; what comes after replaces names only.
    let tree = scene.plain(|b| {
        raw(b, Symlink, b"link", &[out, b"/file"].concat());
        raw(b, Link, b"hard", b"link");
        raw(b, Regular, b"hard", b"");
        raw(b, Regular, b"link", b"");
    });
    assert!(tree.unwrap()["./hard"].starts_with("file 106777"));
    for (target, word) in [
        ("../../outside/file", "leaves the layer"),
        ("..", "leaves the layer"),
        ("folder", "to a folder"),
        (".", "to a folder"),
        ("link/file", "whose folder is none"),
        (".wh.x/y", ""),
    ] {
        let told = scene.plain(|b| {
            raw(b, Directory, b"folder", b"");
            raw(b, Symlink, b"link", out);
            raw(b, Link, b"hard", target.as_bytes());
        });
        let told = told.map(|tree| tree.get("./hard").cloned().unwrap_or_default());
        // What no layer has is told when the layer is published (`links.rs`).
        assert!(
            told.as_ref().is_err_and(|told| told.contains(word)) || word.is_empty(),
            "{target}: {told:?}"
        );
    }
    // Symbolic links keep their text, whatever it says.
    let tree = scene.plain(|b| raw(b, Symlink, b"link", b"../../../etc/passwd")).unwrap();
    assert!(tree["./link"].contains("to ../../../etc/passwd"));
}

#[test]
fn root_nothing_of_overlayfs_can_be_forged() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let told = scene.plain(|b| raw(b, Char, b"null", b"")).unwrap_err();
    assert!(told.contains("whiteout"), "{told}");
    let forged: [(&str, &[u8]); 6] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
        ("SCHILY.xattr.security.ima", b"x"),
        ("SCHILY.xattr.user.kept", b"yes"),
    ];
    let layers = Layers::open(&scene.dir.path().join("store")).unwrap();
    let making = layers.begin().unwrap();
    let bytes = archive(|b| {
        extended(b, &forged, Directory, "folder");
        extended(b, &forged, Regular, "file");
    });
    unpack_stream(bytes.as_slice(), Compression::Plain, &making, "test").unwrap();
    for name in ["folder", "file"] {
        let opened = std::fs::File::open(making.files_path().join(name)).unwrap();
        let kept = shim_sys::path::xattrs(&opened).unwrap();
        assert_eq!(kept, [(b"user.kept".to_vec(), b"yes".to_vec())], "{name}");
    }
}

#[test]
fn root_whiteouts_that_are_none_are_refused_and_aufs_is_passed_over() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for name in [".wh.", "a/.wh.", "a/.wh..", "a/.wh..."] {
        assert!(scene.plain(|b| raw(b, Regular, name.as_bytes(), b"")).is_err(), "{name}");
    }
    let tree = scene.plain(|b| {
        for name in [".wh..wh.aufs", ".wh..wh.plnk/12.34", ".wh..wh.orph"] {
            raw(b, Regular, name.as_bytes(), b"");
        }
    });
    assert!(tree.unwrap().keys().all(|name| !name.contains(".wh..wh.aufs")));
    // What the layer itself holds stays, before and after its whiteout.
    let tree = scene.plain(|b| {
        raw(b, Regular, b"before", b"");
        raw(b, Regular, b".wh.before", b"");
        raw(b, Regular, b".wh.after", b"");
        raw(b, Regular, b"after", b"");
        raw(b, Regular, b"folder/.wh..wh..opq", b"");
        raw(b, Regular, b"folder/.wh..wh..opq", b"");
        raw(b, Regular, b"folder/file", b"");
    });
    let tree = tree.unwrap();
    for name in ["./before", "./after", "./folder/file"] {
        assert!(tree[name].starts_with("file"), "{name}: {tree:?}");
    }
}

#[test]
fn root_numbers_out_of_range_are_refused_before_anything_is_made() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let none = u64::from(u32::MAX);
    for edit in [
        (|h: &mut ::tar::Header| h.set_uid(u64::from(u32::MAX))) as fn(&mut ::tar::Header),
        |h| h.set_gid(1 << 40),
        |h| h.as_old_mut().uid = [0xff; 8],
        |h| h.as_old_mut().mode = *b"rwxr-xr-",
        |h| h.as_old_mut().size = *b"9999999999x\0",
        |h| h.as_old_mut().mtime = [0x80 | 0x3f; 12],
    ] {
        assert!(scene.plain(|b| header(b, Regular, b"x", edit)).is_err());
    }
    let max = none.to_string();
    let records: [(&str, &[u8]); 9] = [
        ("uid", max.as_bytes()),
        ("gid", b"-1"),
        ("uid", b"1e3"),
        ("mtime", b"NaN"),
        ("mtime", b"1.x"),
        ("size", b"-5"),
        ("size", b"18446744073709551616"),
        ("path", b"../x"),
        ("linkpath", &[b'x'; 5_000]),
    ];
    for (key, value) in records {
        let told = scene.plain(|b| extended(b, &[(key, value)], Regular, "x"));
        assert!(told.is_err(), "{key}: {told:?}");
    }
    let many: Vec<(String, Vec<u8>)> =
        (0..65).map(|n| (format!("SCHILY.xattr.user.n{n}"), b"x".to_vec())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
    assert!(scene.plain(|b| extended(b, &many, Regular, "x")).is_err());
    let large = vec![b'x'; 70_000];
    let large: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.large", &large)];
    assert!(scene.plain(|b| extended(b, &large, Regular, "x")).is_err());
}

#[test]
fn root_sparse_maps_that_lie_are_refused() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for (size, map) in [
        ("100", "0,5,3,5"),
        ("4", "0,5"),
        ("100", "18446744073709551615,5"),
        ("100", "0"),
        ("x", "0,5"),
        ("1000000000000000", "0,5"),
    ] {
        let records: [(&str, &[u8]); 2] =
            [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        let told = scene.plain(|b| extended(b, &records, Regular, "x"));
        assert!(told.is_err(), "{size} {map}: {told:?}");
    }
    // Eight EiB of nothing are over the bound of a layer.
    let hole: [(&str, &[u8]); 2] =
        [("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,0")];
    let told = scene.plain(|b| extended(b, &hole, Regular, "x")).unwrap_err();
    assert!(told.contains("bound"), "{told}");
}

#[test]
fn root_what_nobody_knows_is_passed_over_with_its_data() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tree = scene.plain(|b| {
        for kind in [b'V', b'D', b'M', b'A', b'z', b'Z'] {
            let mut header = ::tar::Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.set_size(700);
            header.set_mode(0o644);
            b.append_data(&mut header, "strange", [kind; 700].as_slice()).unwrap();
        }
        entry(b, Regular, "after", "");
    });
    assert_eq!(tree.unwrap().keys().collect::<Vec<_>>(), [".", "./after"]);
}

#[test]
fn root_streams_are_what_their_type_says_and_end_where_they_end() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let plain = archive(|b| entry(b, Regular, "file", ""));
    let gzip = {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(&plain).unwrap();
        to.finish().unwrap()
    };
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    // Two members or frames are one stream, and a frame to be skipped is nothing.
    let halves = plain.split_at(700);
    let two: Vec<u8> = [halves.0, halves.1]
        .into_iter()
        .flat_map(|half| zstd::encode_all(half, 1).unwrap())
        .collect();
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
    for good in [&zstd, &two, &skipped] {
        assert!(scene.unpack(Compression::Zstd, good).is_ok());
    }
    // A window of 2 GiB, of which a reader would have to keep everything.
    let wide = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8][..], &[0; 20]].concat();
    for (compression, bad) in [
        (Compression::Zstd, wide.as_slice()),
        (Compression::Zstd, gzip.as_slice()),
        (Compression::Gzip, zstd.as_slice()),
        (Compression::Gzip, plain.as_slice()),
        (Compression::Plain, gzip.as_slice()),
        (Compression::Gzip, &gzip[..gzip.len() - 9]),
        (Compression::Zstd, &zstd[..zstd.len() - 3]),
        (Compression::Gzip, &[&gzip[..], b"more"].concat()),
        (Compression::Zstd, &[&zstd[..], b"more"].concat()),
        (Compression::Gzip, b""),
    ] {
        let told = scene.unpack(compression, bad);
        assert!(told.is_err(), "{compression:?} of {} bytes: {told:?}", bad.len());
    }
}

#[test]
fn root_many_entries_of_one_name_are_the_last_one() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tree = scene.plain(|b| {
        for number in 0..3_000u32 {
            let kind = [Regular, Directory, Fifo][number as usize % 3];
            raw(b, kind, b"same", b"");
        }
        for depth in 1..=200 {
            raw(b, Directory, "d/".repeat(depth).get(..98.min(depth * 2)).unwrap().as_bytes(), b"");
        }
    });
    let tree = tree.unwrap();
    assert!(tree["./same"].starts_with("special"), "{}", tree["./same"]);
    assert_eq!(std::fs::metadata(scene.dir.path()).unwrap().uid(), 0);
}
