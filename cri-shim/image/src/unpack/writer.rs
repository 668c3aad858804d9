//! Writes entries beneath one layer's folder by descriptor. Parents are opened without passing any
//! link and kept for the next entry. Owner, then attributes, then permissions, then time: each step
//! would undo the one after it. Times of folders are set last of all, because filling a folder changes
//! them.

use super::borrow::{Borrowed, Borrowing};
use crate::error::ImageError;
use crate::tar::{Entry, Kind};
use shim_model::limits;
use shim_sys::error::{Errno, SysError};
use shim_sys::path::{self, Special};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};

/// Open parents that are kept.
const KEPT: usize = 128;
/// Attribute by which overlayfs hides what lies below a folder.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Something below the layer's folder.
#[derive(Debug)]
pub struct Writer {
    root: OwnedFd,
    parents: HashMap<Vec<u8>, OwnedFd>,
    /// Times of folders by path.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// Folders that no entry made: a lower layer may say what they are.
    implied: BTreeSet<Vec<u8>>,
    /// Names that this layer hides.
    hidden: BTreeSet<Vec<u8>>,
    /// Folders in which this layer hides everything of the layers below.
    opaque: BTreeSet<Vec<u8>>,
    /// Folders that are new because this layer hides the one below of the same name.
    fresh: BTreeSet<Vec<u8>>,
    /// Hard links to what layers below hold.
    borrowing: Borrowing,
    /// Data of an earlier entry was taken away by a later one of the same name.
    replaced: bool,
}

impl Writer {
    /// Writes below this folder.
    pub fn new(root: OwnedFd) -> Self {
        Self {
            root,
            parents: HashMap::new(),
            times: BTreeMap::new(),
            // The root is there without an entry too.
            implied: BTreeSet::from([Vec::new()]),
            hidden: BTreeSet::new(),
            opaque: BTreeSet::new(),
            fresh: BTreeSet::new(),
            borrowing: Borrowing::default(),
            replaced: false,
        }
    }

    /// The folder that holds a path, made if no entry made it.
    pub fn parent(&mut self, of: &[u8]) -> Result<&OwnedFd, ImageError> {
        let (parent, _) = path::split(of);
        if parent.is_empty() {
            return Ok(&self.root);
        }
        if !self.parents.contains_key(parent) {
            if self.parents.len() >= KEPT {
                self.parents.clear();
            }
            let opened = self.open_or_make(parent)?;
            self.parents.insert(parent.to_vec(), opened);
        }
        self.parents.get(parent).ok_or_else(|| hostile(of, "its folder vanished"))
    }

    fn open_or_make(&mut self, folder: &[u8]) -> Result<OwnedFd, ImageError> {
        match path::open_beneath(&self.root, folder) {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(beneath(folder, error)),
        }
        let mut made = Vec::new();
        for part in folder.split(|b| *b == b'/') {
            let above = path::open_beneath(&self.root, &made).map_err(|e| beneath(folder, e))?;
            if !made.is_empty() {
                made.push(b'/');
            }
            made.extend_from_slice(part);
            match path::look(&above, part).map_err(|e| beneath(folder, e))? {
                Some(there) if there.is_folder() => continue,
                Some(there) if there.is_character() && self.hidden.contains(&made) => {
                    self.make_folder(&above, &made, part)?;
                }
                Some(_) => return Err(hostile(folder, "its parent is not a folder")),
                None => self.make_folder(&above, &made, part)?,
            }
            self.implied.insert(made.clone());
            let opened = path::open_beneath(&above, part).map_err(|e| beneath(folder, e))?;
            path::set_mode(&opened, 0o755).map_err(|e| beneath(folder, e))?;
        }
        path::open_beneath(&self.root, folder).map_err(|e| beneath(folder, e))
    }

    /// Makes a folder; over a whiteout of this layer it hides what lies below.
    fn make_folder(
        &mut self,
        above: &OwnedFd,
        whole: &[u8],
        name: &[u8],
    ) -> Result<(), ImageError> {
        let was_hidden = self.hidden.remove(whole);
        if was_hidden {
            path::remove_file(above, name).map_err(|e| beneath(whole, e))?;
        }
        path::make_folder(above, name).map_err(|e| beneath(whole, e))?;
        if was_hidden {
            let opened = path::open_beneath(above, name).map_err(|e| beneath(whole, e))?;
            path::set_xattr(&opened, OPAQUE, b"y").map_err(|e| beneath(whole, e))?;
            self.opaque.insert(whole.to_vec());
            self.fresh.insert(whole.to_vec());
        }
        Ok(())
    }

    /// A folder.
    pub fn folder(&mut self, at: &[u8], entry: &Entry) -> Result<(), ImageError> {
        let opened = if at.is_empty() {
            path::open_beneath(&self.root, b"").map_err(|e| beneath(at, e))?
        } else {
            let (_, name) = path::split(at);
            let above = path::open_beneath(self.parent(at)?, b"").map_err(|e| beneath(at, e))?;
            match path::look(&above, name).map_err(|e| beneath(at, e))? {
                Some(there) if there.is_folder() => {}
                Some(_) if !self.hidden.contains(at) => {
                    self.replaced |= !self.borrowing.forget(at);
                    path::remove_file(&above, name).map_err(|e| beneath(at, e))?;
                    self.make_folder(&above, at, name)?;
                }
                Some(_) | None => self.make_folder(&above, at, name)?,
            }
            path::open_beneath(&above, name).map_err(|e| beneath(at, e))?
        };
        self.implied.remove(at);
        self.times.insert(at.to_vec(), entry.mtime);
        attributes(&opened, at, entry)
    }

    /// A regular file, open for its data; [`Writer::finish_file`] completes it.
    pub fn file(&mut self, at: &[u8]) -> Result<OwnedFd, ImageError> {
        self.place(at, |parent, name| path::make_file(parent, name))
    }

    /// Owner, attributes, permissions and time of a file whose data is written.
    pub fn finish_file(&self, file: &OwnedFd, at: &[u8], entry: &Entry) -> Result<(), ImageError> {
        attributes(file, at, entry)?;
        path::set_time(file, entry.mtime).map_err(|e| beneath(at, e))
    }

    /// A symbolic link; its text may say anything, it is never followed.
    pub fn link(&mut self, at: &[u8], entry: &Entry) -> Result<(), ImageError> {
        self.place(at, |parent, name| {
            path::make_link(parent, name, &entry.link)?;
            path::set_by_name(parent, name, (entry.uid, entry.gid), None, entry.mtime)
        })
    }

    /// Another name of something that this layer holds, or a layer below.
    pub fn hard_link(&mut self, at: &[u8], target: &[u8]) -> Result<(), ImageError> {
        if at == target {
            return Ok(());
        }
        if target.is_empty() {
            return Err(hostile(at, "a hard link to a folder"));
        }
        let Some(from) = self.holder_of(at, target)? else { return self.borrow(at, target) };
        let (_, from_name) = path::split(target);
        let (_, name) = path::split(at);
        let parent = self.free(at)?;
        path::make_hard_link((&from, from_name), (parent, name)).map_err(|e| beneath(at, e))?;
        if let Some(lower) = self.borrowing.target_of(target) {
            self.borrowing.add(&lower, at);
        }
        Ok(())
    }

    /// The folder of this layer that holds a link's target; `None` if only a layer below can.
    fn holder_of(&self, at: &[u8], target: &[u8]) -> Result<Option<OwnedFd>, ImageError> {
        let hides = || {
            Err(hostile(
                at,
                &format!("its hard link names {}, which this layer hides", shown(target)),
            ))
        };
        let mut folder = path::open_beneath(&self.root, b"").map_err(|e| beneath(at, e))?;
        let mut whole = Vec::new();
        let mut is_opaque = self.opaque.contains(whole.as_slice());
        let mut parts = target.split(|b| *b == b'/').peekable();
        while let Some(part) = parts.next() {
            if !whole.is_empty() {
                whole.push(b'/');
            }
            whole.extend_from_slice(part);
            let there = path::look(&folder, part).map_err(|e| beneath(at, e))?;
            let is_last = parts.peek().is_none();
            match there {
                None if is_opaque => return hides(),
                None => return Ok(None),
                Some(_) if self.hidden.contains(&whole) => return hides(),
                Some(there) if there.is_folder() && is_last => {
                    return Err(hostile(at, "a hard link to a folder"));
                }
                Some(_) if is_last => return Ok(Some(folder)),
                Some(there) if there.is_folder() => {
                    is_opaque |= self.opaque.contains(&whole);
                    folder = path::open_beneath(&folder, part).map_err(|e| beneath(at, e))?;
                }
                Some(_) => {
                    let text =
                        format!("its hard link names {}, whose folder is none", shown(target));
                    return Err(hostile(at, &text));
                }
            }
        }
        Ok(None)
    }

    /// A name whose file is in a layer below: an empty file until the layer is published.
    fn borrow(&mut self, at: &[u8], target: &[u8]) -> Result<(), ImageError> {
        let (_, name) = path::split(at);
        match self.borrowing.name_for(target) {
            // It would be freed, and is what it is to be.
            Some(known) if known == at => return Ok(()),
            Some(known) => {
                let (folder, known) = path::split(&known);
                let from = path::open_beneath(&self.root, folder).map_err(|e| beneath(at, e))?;
                let parent = self.free(at)?;
                path::make_hard_link((&from, known), (parent, name)).map_err(|e| beneath(at, e))?;
            }
            None if self.borrowing.count() >= limits::BORROWED_FILES => {
                let what = "the number of files of other layers that one layer links to".to_owned();
                return Err(ImageError::Bound { what, bound: limits::BORROWED_FILES as u64 });
            }
            None => {
                let parent = self.free(at)?;
                drop(path::make_file(parent, name).map_err(|e| beneath(at, e))?);
            }
        }
        self.borrowing.add(target, at);
        Ok(())
    }

    /// A device or pipe.
    pub fn special(
        &mut self,
        at: &[u8],
        special: Special,
        entry: &Entry,
    ) -> Result<(), ImageError> {
        self.place(at, |parent, name| {
            path::make_special(parent, name, special)?;
            let owner = (entry.uid, entry.gid);
            path::set_by_name(parent, name, owner, Some(entry.mode), entry.mtime)
        })
    }

    /// Hides a name of the layers below; what this layer itself holds there stays.
    pub fn hide(&mut self, at: &[u8]) -> Result<(), ImageError> {
        let (_, name) = path::split(at);
        let parent = self.parent(at)?;
        match path::look(parent, name).map_err(|e| beneath(at, e))? {
            Some(there) if there.is_folder() => return self.hide_below(at),
            Some(_) => return Ok(()),
            None => {}
        }
        path::make_special(parent, name, Special::Character(0, 0)).map_err(|e| beneath(at, e))?;
        self.hidden.insert(at.to_vec());
        Ok(())
    }

    /// Hides everything of the layers below in a folder.
    pub fn hide_below(&mut self, folder: &[u8]) -> Result<(), ImageError> {
        let opened = if folder.is_empty() {
            path::open_beneath(&self.root, b"").map_err(|e| beneath(folder, e))?
        } else {
            self.open_or_make(folder)?
        };
        self.opaque.insert(folder.to_vec());
        path::set_xattr(&opened, OPAQUE, b"y").map_err(|e| beneath(folder, e))
    }

    /// True if a later entry took the data of an earlier one away.
    pub fn has_replaced(&self) -> bool {
        self.replaced
    }

    /// Sets the times of folders, and gives the folders that no entry described and what is borrowed.
    pub fn finish(self) -> Result<(Vec<Vec<u8>>, Vec<Borrowed>), ImageError> {
        for (at, mtime) in self.times.iter().rev() {
            match path::open_beneath(&self.root, at) {
                Ok(opened) => path::set_time(&opened, *mtime).map_err(|e| beneath(at, e))?,
                // Replaced by a later entry that is no folder.
                Err(error)
                    if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => return Err(beneath(at, error)),
            }
        }
        // What is new, or in a folder that hides everything below, is seen nowhere below.
        let hidden = |at: &[u8]| {
            self.fresh.contains(at) || self.opaque.iter().any(|folder| is_in(at, folder))
        };
        let implied = self.implied.iter().filter(|at| !hidden(at)).cloned().collect();
        Ok((implied, self.borrowing.finish()))
    }

    /// Makes something under a name, which is nearly always free: only where it is not is it looked at.
    fn place<T>(
        &mut self,
        at: &[u8],
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, SysError>,
    ) -> Result<T, ImageError> {
        let (_, name) = path::split(at);
        if name.is_empty() {
            return Err(hostile(at, "the layer's root must be a folder"));
        }
        match make(self.parent(at)?, name) {
            Err(error) if error.errno() == Errno::EEXIST => make(self.free(at)?, name),
            made => made,
        }
        .map_err(|error| beneath(at, error))
    }

    /// The parent of a name, with the name free: what an earlier entry put there is taken away.
    fn free(&mut self, at: &[u8]) -> Result<&OwnedFd, ImageError> {
        let (_, name) = path::split(at);
        if name.is_empty() {
            return Err(hostile(at, "the layer's root must be a folder"));
        }
        self.hidden.remove(at);
        let parent = path::open_beneath(self.parent(at)?, b"").map_err(|e| beneath(at, e))?;
        if let Some(there) = path::look(&parent, name).map_err(|e| beneath(at, e))? {
            path::remove_all(&parent, name).map_err(|e| beneath(at, e))?;
            let was_empty = self.borrowing.forget(at);
            self.replaced |= there.is_folder() || there.is_file() && !was_empty;
            if there.is_folder() {
                self.borrowing.forget_below(at);
                self.opaque.retain(|known| known != at && !below(known, at));
                self.fresh.retain(|known| known != at && !below(known, at));
                self.hidden.retain(|known| !below(known, at));
                self.parents.retain(|known, _| known != at && !below(known, at));
                self.times.retain(|known, _| known != at && !below(known, at));
                self.implied.retain(|known| known != at && !below(known, at));
            }
        }
        self.parent(at)
    }
}

fn below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

/// As [`below`], for the root too.
fn is_in(path: &[u8], folder: &[u8]) -> bool {
    if folder.is_empty() { !path.is_empty() } else { below(path, folder) }
}

/// Owner, extended attributes, permissions.
fn attributes(fd: impl AsFd, at: &[u8], entry: &Entry) -> Result<(), ImageError> {
    path::set_owner(&fd, entry.uid, entry.gid).map_err(|e| beneath(at, e))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        match path::set_xattr(&fd, name, value) {
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {}
            set => set.map_err(|e| beneath(at, e))?,
        }
    }
    path::set_mode(fd, entry.mode).map_err(|e| beneath(at, e))
}

/// Attributes that a layer may set. Those of overlayfs would forge whiteouts and redirects; labels
/// and measurements belong to the host.
pub fn is_kept(name: &[u8]) -> bool {
    let forged = name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.");
    !forged && !matches!(name, b"security.selinux" | b"security.ima" | b"security.evm")
}

/// The special file of an entry, if layers may hold it.
pub fn special_of(kind: &Kind) -> Option<Special> {
    match kind {
        // Character device 0:0 is what overlayfs takes for a whiteout.
        Kind::Character(major, minor) if (*major, *minor) != (0, 0) => {
            Some(Special::Character(*major, *minor))
        }
        Kind::Block(major, minor) => Some(Special::Block(*major, *minor)),
        Kind::Fifo => Some(Special::Fifo),
        Kind::Character(..)
        | Kind::File
        | Kind::Folder
        | Kind::Symlink
        | Kind::HardLink
        | Kind::Other(_) => None,
    }
}

pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).flat_map(char::escape_default).collect()
}

/// An entry that no layer may hold.
pub fn hostile(at: &[u8], why: &str) -> ImageError {
    ImageError::Hostile { entry: shown(at), why: why.to_owned() }
}

/// A failure beneath the layer: a link on the way is the archive's doing, the rest is the host's.
fn beneath(at: &[u8], source: SysError) -> ImageError {
    match source.errno() {
        Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR | Errno::ENAMETOOLONG => {
            hostile(at, &format!("its path leaves the layer's folders ({})", source.errno()))
        }
        _ => ImageError::System { doing: format!("unpack {}", shown(at)), source },
    }
}
