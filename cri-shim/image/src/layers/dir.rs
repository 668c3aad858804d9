//! Layers as folders: `layers/CHAINHEX/{fs,archive,meta}`. A layer is unpacked in `tmp/`, completed,
//! flushed, and renamed to its chain id: what stands under `layers/` is whole. Names in `tmp/` say which
//! process made them, so that what a dead one left can be told from what a living one works on.

use crate::error::ImageError;
use crate::usage::{self, Usage};
use serde::{Deserialize, Serialize};
use shim_model::digest::{ChainId, DiffId};
use shim_sys::path;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How the names of what is to be deleted begin.
const GONE: &str = "gone-";

/// A name in `tmp/` that tells who made it.
pub fn scratch_name(kind: &str) -> String {
    format!("{kind}-{}-{:016x}", std::process::id(), rand::random::<u64>())
}

/// The layer store.
#[derive(Clone, Debug)]
pub struct Layers {
    root: PathBuf,
}

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Digest of its uncompressed stream.
    pub diff_id: DiffId,
    /// Bytes on the disk of its files and of its record for export.
    pub bytes: u64,
    /// Inodes of both.
    pub inodes: u64,
    /// Its archive can be made again from its files and its record.
    #[serde(default)]
    pub exact: bool,
}

/// A layer in the making.
#[derive(Debug)]
pub struct Making {
    folder: PathBuf,
    committed: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.committed {
            let _the_next_start_cleans_what_stays = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Making {
    /// An open handle of the folder to unpack into.
    pub fn files(&self) -> Result<std::os::fd::OwnedFd, ImageError> {
        path::open_folder(&self.folder.join("fs"))
            .map_err(ImageError::system("open a layer in the making"))
    }

    /// Where that folder is.
    pub fn files_path(&self) -> PathBuf {
        self.folder.join("fs")
    }

    /// What it takes on the disk, once it is flushed.
    pub fn usage(&self) -> Usage {
        usage::of_folder(&self.folder)
    }

    /// A new file for the record of how its archive was made.
    pub fn record(&self) -> Result<File, ImageError> {
        let path = self.folder.join("archive");
        File::create(&path).map_err(ImageError::file("create", path))
    }
}

impl Layers {
    /// Below a data folder; makes its own folders.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        for name in ["layers", "tmp"] {
            let dir = root.join(name);
            fs::create_dir_all(&dir).map_err(ImageError::file("make the folder", &dir))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Where a layer's files are.
    pub fn files(&self, chain: &ChainId) -> PathBuf {
        self.folder(chain).join("fs")
    }

    /// Where the record of how its archive was made is (see [`crate::unpack::split`]).
    pub fn record(&self, chain: &ChainId) -> PathBuf {
        self.folder(chain).join("archive")
    }

    fn folder(&self, chain: &ChainId) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    /// What is known of a layer; `None` if it is not here.
    pub fn meta(&self, chain: &ChainId) -> Option<Meta> {
        serde_json::from_slice(&fs::read(self.folder(chain).join("meta")).ok()?).ok()
    }

    /// Begins a layer.
    pub fn begin(&self) -> Result<Making, ImageError> {
        let folder = self.root.join("tmp").join(scratch_name("layer"));
        let files = folder.join("fs");
        fs::create_dir_all(&files).map_err(ImageError::file("make the folder", &files))?;
        // An image without an entry for its root has the usual one.
        std::os::unix::fs::chown(&files, Some(0), Some(0))
            .map_err(ImageError::file("own", &files))?;
        fs::set_permissions(&files, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(ImageError::file("change the mode of", &files))?;
        Ok(Making { folder, committed: false })
    }

    /// Flushes everything that was unpacked, once for all layers of a pull.
    pub fn flush(&self) -> Result<(), ImageError> {
        let dir =
            path::open_folder(&self.root).map_err(ImageError::system("open the data folder"))?;
        path::sync_file_system(dir).map_err(ImageError::system("flush the layers"))
    }

    /// Makes a flushed layer visible.
    pub fn commit(
        &self,
        mut making: Making,
        chain: &ChainId,
        meta: &Meta,
    ) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(meta)
            .map_err(|source| ImageError::Json { what: "a layer's record".to_owned(), source })?;
        let beside = making.folder.join("meta.new");
        crate::content::durable(&beside, &making.folder.join("meta"), &bytes)?;
        let to = self.folder(chain);
        match fs::rename(&making.folder, &to) {
            Ok(()) => making.committed = true,
            // Somebody else made the same layer: theirs is as good.
            Err(_) if self.meta(chain).is_some() => return Ok(()),
            Err(error) => return Err(ImageError::file("rename to", to)(error)),
        }
        let dir = self.root.join("layers");
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(ImageError::file("flush", dir))
    }

    /// Every layer here.
    pub fn list(&self) -> Vec<ChainId> {
        let entries = fs::read_dir(self.root.join("layers")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                ChainId::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).ok()
            })
            .collect()
    }

    /// Takes a layer out of sight; its files wait at the path that is given back. `None` if it is not
    /// here.
    pub fn set_aside(&self, chain: &ChainId) -> Result<Option<PathBuf>, ImageError> {
        let name = format!("{GONE}{}-{:016x}", chain.hex(), rand::random::<u64>());
        let aside = self.root.join("tmp").join(name);
        match fs::rename(self.folder(chain), &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::file("take away", aside)(error)),
        }
    }

    /// Deletes what was taken out of sight; what is missing is done.
    pub fn delete(&self, aside: &Path) -> Result<(), ImageError> {
        self.empty_tmp_entry(aside)
    }

    /// Takes what a crash left in the making out of reach of whoever made it; [`Layers::sweep`] deletes it.
    /// Only at start, before any pull.
    pub fn disown(&self) -> Result<(), ImageError> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(ImageError::file("list", &tmp))?.flatten() {
            let name = entry.file_name();
            // A worker of a dead daemon may be about to rename it to where it would be taken for whole.
            if !name.as_encoded_bytes().starts_with(GONE.as_bytes()) {
                let aside = tmp.join(format!("{GONE}{:016x}", rand::random::<u64>()));
                fs::rename(entry.path(), &aside).map_err(ImageError::file("take away", aside))?;
            }
        }
        Ok(())
    }

    /// Deletes what was disowned or set aside. Blocks; what cannot be deleted stays for the next time.
    pub fn sweep(&self) {
        self.sweep_where(|name| name.starts_with(GONE));
    }

    /// Deletes what a process that has ended was making.
    pub fn sweep_after(&self, process: u32) {
        let mark = format!("-{process}-");
        self.sweep_where(|name| !name.starts_with(GONE) && name.contains(&mark));
    }

    fn sweep_where(&self, chosen: impl Fn(&str) -> bool) {
        let entries = fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| chosen(&entry.file_name().to_string_lossy())) {
            if let Err(error) = self.empty_tmp_entry(&entry.path()) {
                tracing::warn!(error = error.chain(), "half a layer stays on the disk");
            }
        }
    }

    /// What one layer takes on the disk; nothing if it is not here.
    pub fn usage(&self, chain: &ChainId) -> Usage {
        let record = usage::of_file(&self.folder(chain).join("meta"));
        self.meta(chain).map_or((0, 0), |meta| usage::sum([(meta.bytes, meta.inodes), record]))
    }

    fn empty_tmp_entry(&self, aside: &Path) -> Result<(), ImageError> {
        let tmp =
            path::open_folder(&self.root.join("tmp")).map_err(ImageError::system("open tmp"))?;
        let name =
            aside.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes).unwrap_or_default();
        path::remove_all(tmp, name)
            .map_err(ImageError::system(format!("remove {}", aside.display())))
    }
}
