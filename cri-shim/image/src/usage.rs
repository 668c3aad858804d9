//! How much a folder holds: bytes on disk and inodes of a tree that a stranger filled. No link is followed
//! and no mount crossed; a file with several names counts once; what vanishes while it is looked at counts
//! as nothing. However wide or deep the tree is, memory and descriptors stay bounded. Takes its time: not
//! on a request's way.

use shim_model::limits;
use shim_sys::path;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Bytes on disk and inodes below a folder, without the folder itself.
pub fn usage(folder: &Path) -> (u64, u64) {
    let Ok(root) = path::open_folder(folder) else { return (0, 0) };
    let mut sum = Sum::default();
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
    use super::usage;
    use std::fs;

    #[test]
    fn files_with_several_names_count_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(usage(folder.path()), (0, 0));
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/file"), vec![1; 100_000]).unwrap();
        let (bytes, inodes) = usage(folder.path());
        assert!(bytes >= 100_000 && inodes == 2, "{bytes} {inodes}");
        fs::hard_link(at("a/file"), at("second")).unwrap();
        assert_eq!(usage(folder.path()), (bytes, 2));
        std::os::unix::fs::symlink("/", at("away")).unwrap();
        assert_eq!(usage(folder.path()).1, 3);
        assert_eq!(usage(&at("missing")), (0, 0));
    }

    #[test]
    fn a_deep_tree_is_counted_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut path = folder.path().to_owned();
        for _ in 0..400 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(usage(folder.path()).1, 401);
    }
}
