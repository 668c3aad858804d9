//! Manifests and configs by digest: verified, written beside, flushed, renamed. What stands here is
//! what its name says.

use crate::error::ImageError;
use crate::layers::dir::scratch_name;
use crate::usage::{self, Usage};
use sha2::{Digest, Sha256};
use shim_model::digest::BlobDigest;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The store of small blobs.
#[derive(Clone, Debug)]
pub struct Content {
    dir: PathBuf,
    /// Where blobs are written before they have their name.
    tmp: PathBuf,
}

/// The digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> BlobDigest {
    BlobDigest::from_bytes(Sha256::digest(bytes).into())
}

/// Refuses bytes that are not what their digest says.
pub fn verify(bytes: &[u8], digest: &BlobDigest, what: &str) -> Result<(), ImageError> {
    let found = digest_of(bytes);
    if found == *digest {
        return Ok(());
    }
    Err(ImageError::Mismatch {
        what: format!("{what} with digest {digest}"),
        found: found.to_string(),
    })
}

impl Content {
    /// Below a data folder; makes its own.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let (dir, tmp) = (root.join("content/sha256"), root.join("tmp"));
        for dir in [&dir, &tmp] {
            fs::create_dir_all(dir).map_err(ImageError::file("make the folder", dir))?;
        }
        Ok(Self { dir, tmp })
    }

    /// Stores bytes under their digest; a second time is nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobDigest, ImageError> {
        let digest = digest_of(bytes);
        let path = self.dir.join(digest.hex());
        if !path.exists() {
            durable(&self.tmp.join(scratch_name("blob")), &path, bytes)?;
        }
        Ok(digest)
    }

    /// Reads bytes and checks them again: a disk may have lied.
    pub fn get(&self, digest: &BlobDigest) -> Result<Vec<u8>, ImageError> {
        let path = self.dir.join(digest.hex());
        let bytes = fs::read(&path).map_err(ImageError::file("read", path))?;
        verify(&bytes, digest, "the stored blob")?;
        Ok(bytes)
    }

    /// Removes a blob; a missing one is done.
    pub fn remove(&self, digest: &BlobDigest) {
        let _missing_is_done = fs::remove_file(self.dir.join(digest.hex()));
    }

    /// What all of them take on the disk.
    pub fn usage(&self) -> Usage {
        usage::sum(self.list().iter().map(|digest| usage::of_file(&self.dir.join(digest.hex()))))
    }

    /// Every digest that is stored.
    pub fn list(&self) -> Vec<BlobDigest> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                BlobDigest::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).ok()
            })
            .collect()
    }
}

/// Writes to another name of the same file system, flushes, renames, flushes the folder: after a power cut
/// the old or the new is there.
pub fn durable(beside: &Path, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut file = File::create(beside).map_err(ImageError::file("create", beside))?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(ImageError::file("write", beside))
        .and_then(|()| fs::rename(beside, path).map_err(ImageError::file("rename to", path)));
    if written.is_err() {
        // A full disk is not to be filled with halves.
        let _the_first_error_counts = fs::remove_file(beside);
    }
    written?;
    let folder = path.parent().unwrap_or(path);
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(ImageError::file("flush", folder))
}
