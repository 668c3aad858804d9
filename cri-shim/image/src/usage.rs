//! How much a folder holds: bytes on disk and inodes of a tree that a stranger filled. No link is followed
//! and no mount crossed; a file with several names counts once; what vanishes while it is looked at counts
//! as nothing. However wide or deep the tree is, memory and descriptors stay bounded. Takes its time: not
//! on a request's way.

use shim_model::limits;
use shim_sys::path;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Bytes on disk, as du(1) counts them, and inodes.
pub type Usage = (u64, u64);

/// Adds up.
pub fn sum(parts: impl IntoIterator<Item = Usage>) -> Usage {
    let add =
        |sum: Usage, part: Usage| (sum.0.saturating_add(part.0), sum.1.saturating_add(part.1));
    parts.into_iter().fold((0, 0), add)
}

/// One file that has no other name, or nothing if it is not there.
pub fn of_file(file: &Path) -> Usage {
    std::fs::symlink_metadata(file).map_or((0, 0), |meta| {
        (std::os::unix::fs::MetadataExt::blocks(&meta).saturating_mul(512), 1)
    })
}

/// A folder with everything below it.
pub fn of_folder(folder: &Path) -> Usage {
    let Ok(root) = path::open_folder(folder) else { return (0, 0) };
    let own = path::describe(&root).map_or(0, |meta| meta.blocks.saturating_mul(512));
    let mut sum = Sum { bytes: own, inodes: 1, ..Sum::default() };
    sum.deep.push(Vec::new());
    while let Some(below) = sum.deep.pop() {
        if let Ok(start) = path::open_beneath(&root, &below) {
            sum.add(&start, &below, 0);
        }
    }
    (sum.bytes, sum.inodes)
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    inodes: u64,
    /// Inodes with several names that were counted.
    seen: BTreeSet<u64>,
    /// Folders that are too deep to be reached from where they were found: begun anew from the top.
    deep: Vec<Vec<u8>>,
}

impl Sum {
    /// Everything in a folder that stands at `at` below the top.
    fn add(&mut self, folder: &OwnedFd, at: &[u8], depth: usize) {
        let _what_was_read_counts = path::visit(folder, |name, is_folder| {
            let Ok(Some(meta)) = path::look(folder.as_fd(), name) else { return };
            if meta.links > 1 && !meta.is_folder() && !self.seen.insert(meta.inode) {
                return;
            }
            self.bytes = self.bytes.saturating_add(meta.blocks.saturating_mul(512));
            self.inodes = self.inodes.saturating_add(1);
            if is_folder {
                self.enter(folder, (at, name), depth);
            }
        });
    }

    fn enter(&mut self, folder: &OwnedFd, (at, name): (&[u8], &[u8]), depth: usize) {
        let below = if at.is_empty() { name.to_vec() } else { [at, name].join(&b'/') };
        if depth >= limits::USAGE_DEPTH {
            self.deep.push(below);
            return;
        }
        if let Ok(inner) = path::open_beneath(folder, name) {
            self.add(&inner, &below, depth.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_folder;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn names_of_one_file_count_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let base = of_folder(folder.path());
        assert_eq!(base.1, 1);
        fs::write(at("a"), [1; 9_000]).unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        let blocks = fs::metadata(at("a")).unwrap().blocks() * 512;
        assert_eq!(of_folder(folder.path()), (base.0 + blocks, 2));
        std::os::unix::fs::symlink("/", at("away")).unwrap();
        assert_eq!(of_folder(folder.path()).1, 3);
        assert_eq!(of_folder(&at("missing")), (0, 0));
    }

    #[test]
    fn wide_and_deep_trees_are_counted_whole() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..5_000 {
            fs::create_dir(folder.path().join(number.to_string())).unwrap();
        }
        let mut path = folder.path().to_owned();
        for _ in 0..400 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(of_folder(folder.path()).1, 1 + 5_000 + 401);
    }
}
