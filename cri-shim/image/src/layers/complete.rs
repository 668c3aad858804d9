//! What a layer needs of the layers below it before it can stand: folders that it fills and does not
//! describe get the attributes that are seen there, and hard links to files below get a copy of the file, as
//! overlayfs makes one when such a link is made in a container. Works in a folder in the making; a crash
//! leaves that folder to be swept.

use super::merged::{Found, Merged};
use crate::error::ImageError;
use crate::unpack::apply::Unpacked;
use crate::unpack::borrow::Borrowed;
use crate::unpack::writer::{OPAQUE, hostile, is_kept, shown};
use shim_model::limits;
use shim_sys::copy;
use shim_sys::error::SysError;
use shim_sys::path::{self, Meta};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Completes a layer's files; `below` are the folders of the layers below, bottom first.
pub fn complete(
    files: &OwnedFd,
    mut unpacked: Unpacked,
    below: &[PathBuf],
) -> Result<(), ImageError> {
    if below.is_empty() && unpacked.borrowed.is_empty() {
        return Ok(());
    }
    let mut merged = Merged::open(below)?;
    let mut copied = unpacked.bytes;
    // By the file's own path: links may lead to one file on several ways.
    let mut known: HashMap<Vec<Vec<u8>>, Vec<u8>> = HashMap::new();
    for borrowed in std::mem::take(&mut unpacked.borrowed) {
        let found = target(&mut merged, &borrowed)?;
        if let Some(name) = known.get(&found.path) {
            link_to(files, &borrowed, name)?;
            continue;
        }
        copied = copied.saturating_add(found.meta.size);
        if copied > limits::LAYER_EXPANDED_BYTES {
            let what = "the size of a layer with the files that it links to".to_owned();
            return Err(ImageError::Bound { what, bound: limits::LAYER_EXPANDED_BYTES });
        }
        fill(files, &borrowed, &found)?;
        unpacked.implied.extend(link_back(files, &borrowed, &found)?);
        known.extend(borrowed.names.into_iter().next().map(|name| (found.path, name)));
    }
    // Last: filling a folder changes its time.
    unpacked.implied.iter().try_for_each(|at| describe(files, at, &mut merged))
}

/// The file that a link names.
fn target(merged: &mut Merged, borrowed: &Borrowed) -> Result<Found, ImageError> {
    let name = borrowed.names.first().map_or(b"".as_slice(), Vec::as_slice);
    let told = |why: &str| {
        hostile(name, &format!("its hard link names {}, {why}", shown(&borrowed.target)))
    };
    let found = merged.find(&borrowed.target)?;
    let found = found.ok_or_else(|| told("which is neither in this layer nor in one below"))?;
    if found.meta.is_file() { Ok(found) } else { Err(told("which is not a regular file")) }
}

/// Makes the names further names of a copy that is there already.
fn link_to(files: &OwnedFd, borrowed: &Borrowed, known: &[u8]) -> Result<(), ImageError> {
    let failed =
        || ImageError::system(format!("link {} of a layer below", shown(&borrowed.target)));
    let (known, known_name) = path::split(known);
    let known = path::open_beneath(files, known).map_err(failed())?;
    for name in &borrowed.names {
        let (folder, name) = path::split(name);
        let folder = path::open_beneath(files, folder).map_err(failed())?;
        let replace = || {
            path::remove_file(&folder, name)?;
            path::make_hard_link((&known, known_name), (&folder, name))
        };
        keeping_time(&folder, replace).map_err(failed())?;
    }
    Ok(())
}

/// Makes the names' empty file a copy of the one below: data, owner, attributes, permissions, time.
fn fill(files: &OwnedFd, borrowed: &Borrowed, found: &Found) -> Result<(), ImageError> {
    let failed =
        || ImageError::system(format!("copy {} of a layer below", shown(&borrowed.target)));
    let Some(name) = borrowed.names.first() else { return Ok(()) };
    let from = path::open_file(&*found.folder, found.name()).map_err(failed())?;
    let to = path::open_file_to_write(files, name).map_err(failed())?;
    copy::data(&from, &to, found.meta.size).map_err(failed())?;
    dress(&to, &from, &found.meta).map_err(failed())
}

/// Owner, extended attributes, permissions, time, in the order in which none undoes another.
fn dress(to: impl AsFd, from: impl AsFd, meta: &Meta) -> Result<(), SysError> {
    path::set_owner(&to, meta.uid, meta.gid)?;
    for (name, value) in path::xattrs(from)?.iter().filter(|(name, _)| is_kept(name)) {
        path::set_xattr(&to, name, value)?;
    }
    path::set_mode(&to, meta.mode)?;
    path::set_time(&to, meta.mtime)
}

/// Gives the copy the name that the file has below, where this layer has nothing of its own to say about
/// it: the names are one file then, as the archive says. Folders made for it come back.
fn link_back(
    files: &OwnedFd,
    borrowed: &Borrowed,
    found: &Found,
) -> Result<Vec<Vec<u8>>, ImageError> {
    let failed =
        || ImageError::system(format!("link {} of a layer below", shown(&borrowed.target)));
    let Some((name, parents)) = found.path.split_last() else { return Ok(Vec::new()) };
    let (mut folder, mut whole) = (path::open_beneath(files, b"").map_err(failed())?, Vec::new());
    let mut made = Vec::new();
    for part in parents {
        if path::has_xattr(&folder, OPAQUE).map_err(failed())? {
            return Ok(made);
        }
        if !whole.is_empty() {
            whole.push(b'/');
        }
        whole.extend_from_slice(part);
        match path::look(&folder, part).map_err(failed())? {
            Some(there) if there.is_folder() => {}
            Some(_) => return Ok(made),
            None => {
                keeping_time(&folder, || path::make_folder(&folder, part)).map_err(failed())?;
                made.push(whole.clone());
            }
        }
        folder = path::open_beneath(&folder, part).map_err(failed())?;
    }
    let is_opaque = path::has_xattr(&folder, OPAQUE).map_err(failed())?;
    if is_opaque || path::look(&folder, name).map_err(failed())?.is_some() {
        return Ok(made);
    }
    let first = borrowed.names.first().map_or(b"".as_slice(), Vec::as_slice);
    let (own, own_name) = path::split(first);
    let own = path::open_beneath(files, own).map_err(failed())?;
    keeping_time(&folder, || path::make_hard_link((&own, own_name), (&folder, name)))
        .map_err(failed())?;
    Ok(made)
}

/// Does something in a folder whose time an entry of the archive set.
fn keeping_time(
    folder: &OwnedFd,
    deed: impl FnOnce() -> Result<(), SysError>,
) -> Result<(), SysError> {
    let meta = path::describe(folder)?;
    deed()?;
    path::set_time(folder, meta.mtime)
}

/// Gives a folder that no entry described what the topmost folder below has.
fn describe(files: &OwnedFd, at: &[u8], merged: &mut Merged) -> Result<(), ImageError> {
    let failed = || ImageError::system(format!("complete the folder {} of a layer", shown(at)));
    let parts: Vec<Vec<u8>> =
        at.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect();
    let folder = path::open_beneath(files, at).map_err(failed())?;
    match merged.folder(&parts)?.first() {
        Some(there) => {
            let meta = path::describe(&**there).map_err(failed())?;
            dress(&folder, &**there, &meta).map_err(failed())
        }
        // Only known here: the usual mode.
        None => path::set_mode(&folder, 0o755).map_err(failed()),
    }
}
