//! A file tree as a list of what each name is, to be compared with another one: type, mode, owner, size,
//! time, device, link text, extended attributes, content, and which names are one file.

use sha2::{Digest, Sha256};
use shim_image::images::Images;
use shim_image::index::Image;
use shim_model::overlay;
use shim_sys::mount::{Flags, NewFs};
use shim_sys::path::{self, Meta};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;

/// What a name is. The text says everything, so that a difference can be read.
pub(crate) type Tree = BTreeMap<String, String>;

/// An image's layers as a container sees them: overlayfs over all, without a writable layer.
pub(crate) fn of_image(images: &Images, image: &Image) -> Tree {
    let layers = images.layer_folders(image);
    if let [only] = layers.as_slice() {
        return of_folder(&path::open_folder(only).unwrap());
    }
    let overlay_fs = NewFs::open(c"overlay").unwrap();
    for (key, value) in overlay::options(&layers, None).unwrap() {
        overlay_fs.text(&CString::new(key).unwrap(), &CString::new(value).unwrap()).unwrap();
    }
    of_folder(&overlay_fs.mount(Flags::NONE).unwrap())
}

/// A folder.
pub(crate) fn of_folder(root: &OwnedFd) -> Tree {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    let mut open = vec![(String::from("."), path::open_beneath(root, b"").unwrap())];
    let mut all = Vec::new();
    while let Some((at, folder)) = open.pop() {
        all.push((at.clone(), describe(&folder, &path::describe(&folder).unwrap()), None));
        for (name, _) in path::list(&folder).unwrap() {
            let meta = path::look(&folder, &name).unwrap().unwrap();
            let shown: String =
                name.iter().flat_map(|b| b.escape_ascii()).map(char::from).collect();
            let whole = format!("{at}/{shown}");
            if meta.is_folder() {
                open.push((whole, path::open_beneath(&folder, &name).unwrap()));
            } else {
                all.push((whole, leaf(&folder, &name, &meta), Some(meta)));
            }
        }
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    for (at, text, meta) in all {
        let shared = meta
            .filter(|meta| meta.links > 1)
            .map(|meta| first.entry(meta.inode).or_insert_with(|| at.clone()).clone());
        // A name that alone is left of several is no link any more to anybody who looks.
        tree.insert(
            at.clone(),
            format!("{text} one with {}", shared.unwrap_or_else(|| at.clone())),
        );
    }
    tree
}

fn common(meta: &Meta) -> String {
    format!("{:o} {}:{} {}.{:09}", meta.mode, meta.uid, meta.gid, meta.mtime.0, meta.mtime.1)
}

fn attributes(of: &OwnedFd) -> String {
    let mut found = path::xattrs(of).unwrap();
    found.retain(|(name, _)| !name.starts_with(b"trusted.overlay."));
    found.sort();
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let shown = found.iter().map(|(name, value)| format!(" {}={}", text(name), text(value)));
    shown.collect::<Vec<_>>().concat()
}

fn describe(folder: &OwnedFd, meta: &Meta) -> String {
    format!("folder {}{}", common(meta), attributes(folder))
}

fn leaf(folder: &OwnedFd, name: &[u8], meta: &Meta) -> String {
    let common = common(meta);
    if meta.is_file() {
        let file = path::open_file(folder, name).unwrap();
        let attributes = attributes(&file);
        let mut hash = Hashed(Sha256::new());
        std::io::copy(&mut File::from(file), &mut hash).unwrap();
        let hash = data_encoding::HEXLOWER.encode(&hash.0.finalize());
        return format!("file {common} {} bytes {}{attributes}", meta.size, &hash[..16]);
    }
    if meta.is_link() {
        let to = path::read_link(folder, name).unwrap();
        return format!("link {common} to {}", to.escape_ascii());
    }
    format!("special {common} {:?}", meta.device)
}

struct Hashed(Sha256);

impl std::io::Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The differences, each as it is here and there.
pub(crate) fn assert_same(here: &Tree, there: &Tree) {
    let names: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let nothing = || "nothing".to_owned();
    let shown = |tree: &Tree, name: &String| tree.get(name).cloned().unwrap_or_else(nothing);
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| here.get(*name) != there.get(*name))
        .map(|name| {
            format!("{name}\n  ours   {}\n  theirs {}", shown(here, name), shown(there, name))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(here.len() > 1);
}
