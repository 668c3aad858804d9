//! Hard links to files that this layer does not hold: a layer below must. Layers are unpacked alone, so
//! such a link stands as an empty file of its own until the layer is published (`layers/complete`); here is
//! remembered which names wait for which file. Pure.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A file of a layer below, and the names of this layer that are to be it. The names are one inode already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Borrowed {
    /// Path of the file, as the link says it.
    pub target: Vec<u8>,
    /// Names in this layer; never empty.
    pub names: Vec<Vec<u8>>,
}

/// What is borrowed so far.
#[derive(Debug, Default)]
pub struct Borrowing {
    targets: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    names: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Borrowing {
    /// A name that waits for this file already.
    pub fn name_for(&self, target: &[u8]) -> Option<Vec<u8>> {
        self.targets.get(target)?.first().cloned()
    }

    /// The file that a name waits for.
    pub fn target_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.names.get(name).cloned()
    }

    /// A name waits for a file.
    pub fn add(&mut self, target: &[u8], name: &[u8]) {
        self.targets.entry(target.to_vec()).or_default().insert(name.to_vec());
        self.names.insert(name.to_vec(), target.to_vec());
    }

    /// A name was taken away. True if it waited for something.
    pub fn forget(&mut self, name: &[u8]) -> bool {
        let Some(target) = self.names.remove(name) else { return false };
        if let Some(names) = self.targets.get_mut(&target) {
            names.remove(name);
            if names.is_empty() {
                self.targets.remove(&target);
            }
        }
        true
    }

    /// A folder was taken away with everything in it.
    pub fn forget_below(&mut self, folder: &[u8]) {
        let below = |name: &[u8]| name.strip_prefix(folder).is_some_and(|r| r.starts_with(b"/"));
        let gone: Vec<Vec<u8>> = self.names.keys().filter(|name| below(name)).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
    }

    /// Files that are waited for.
    pub fn count(&self) -> usize {
        self.targets.len()
    }

    /// All of it, in the order of the files' names.
    pub fn finish(self) -> Vec<Borrowed> {
        let all = self.targets.into_iter();
        all.map(|(target, names)| Borrowed { target, names: names.into_iter().collect() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Borrowing;

    #[test]
    fn names_that_are_taken_away_wait_no_more() {
        let mut borrowing = Borrowing::default();
        borrowing.add(b"lower", b"a/one");
        borrowing.add(b"lower", b"two");
        borrowing.add(b"other", b"a/three");
        assert_eq!(borrowing.name_for(b"lower").unwrap(), b"a/one");
        assert!(borrowing.forget(b"two") && !borrowing.forget(b"two"));
        borrowing.forget_below(b"a");
        assert!(borrowing.count() == 0 && borrowing.finish().is_empty());
    }
}
