//! The state folder on tmpfs: `pods/ID/{config,state,files/,journal,monitor.sock}` and
//! `pods/ID/c/ID/{config,state,plan}`. Each file has one writer; `config` is written once before
//! anything exists, `state` beside and renamed. Never fsynced: a reboot ends the pods anyway.
//! Every path is built from validated ids below our own root.

use crate::error::RuntimeError;
use serde::{Serialize, de::DeserializeOwned};
use shim_model::id::{ContainerId, SandboxId};
use shim_model::record;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
    boot: String,
}

impl StateDir {
    /// Makes the folder (0700, or 0711 above sockets is the daemon's choice) and what it holds.
    pub fn open(root: &Path, boot: &str) -> Result<Self, RuntimeError> {
        let dir = Self { root: root.to_owned(), boot: boot.to_owned() };
        make(&dir.root)?;
        make(&dir.root.join("pods"))?;
        make(&dir.root.join("damaged"))?;
        Ok(dir)
    }

    /// The boot id that is written into every record.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// A pod's folder.
    pub fn pod(&self, id: &SandboxId) -> PathBuf {
        self.root.join("pods").join(id.as_str())
    }

    /// A container's folder.
    pub fn container(&self, pod: &SandboxId, id: &ContainerId) -> PathBuf {
        self.pod(pod).join("c").join(id.as_str())
    }

    /// Makes a pod's folder; it must not exist.
    pub fn make_pod(&self, id: &SandboxId) -> Result<PathBuf, RuntimeError> {
        let dir = self.pod(id);
        for folder in [dir.clone(), dir.join("files"), dir.join("c")] {
            new_folder(&folder)?;
        }
        Ok(dir)
    }

    /// Makes a container's folder; it must not exist.
    pub fn make_container(
        &self,
        pod: &SandboxId,
        id: &ContainerId,
    ) -> Result<PathBuf, RuntimeError> {
        let dir = self.container(pod, id);
        new_folder(&dir)?;
        Ok(dir)
    }

    /// Removes a pod's folder with everything in it.
    pub fn remove_pod(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        remove(&self.pod(id))
    }

    /// Removes a container's folder.
    pub fn remove_container(&self, pod: &SandboxId, id: &ContainerId) -> Result<(), RuntimeError> {
        remove(&self.container(pod, id))
    }

    /// Moves a pod's folder that cannot be read out of the way, so that it stops nobody else.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let to = self.root.join("damaged").join(name);
        let _gone = fs::remove_dir_all(&to);
        fs::rename(self.root.join("pods").join(name), &to)
            .map_err(RuntimeError::file("set aside as", &to))?;
        Ok(to)
    }

    /// Names of everything below `pods/`.
    pub fn pod_names(&self) -> Result<Vec<String>, RuntimeError> {
        names(&self.root.join("pods"))
    }

    /// Names of everything below a pod's `c/`.
    pub fn container_names(&self, pod: &SandboxId) -> Result<Vec<String>, RuntimeError> {
        names(&self.pod(pod).join("c"))
    }

    /// Writes a record: a reader sees the old one (or none) or the new one, never a part.
    pub fn replace<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), RuntimeError> {
        let bytes = self.encode(path, value)?;
        let beside = path.with_extension("new");
        write_file(&beside, &bytes)?;
        fs::rename(&beside, path).map_err(RuntimeError::file("replace", path))
    }

    fn encode<T: Serialize>(&self, path: &Path, value: &T) -> Result<Vec<u8>, RuntimeError> {
        record::encode(&self.boot, value)
            .map_err(|source| RuntimeError::Record { path: path.to_owned(), source })
    }

    /// Reads a record; `None` if there is none.
    pub fn read<T: DeserializeOwned>(
        &self,
        path: &Path,
    ) -> Result<Option<record::Read<T>>, RuntimeError> {
        match fs::read(path) {
            Ok(bytes) => record::decode(&bytes)
                .map(Some)
                .map_err(|source| RuntimeError::Record { path: path.to_owned(), source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RuntimeError::file("read", path)(error)),
        }
    }
}

/// Writes a whole file, mode 0600.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(RuntimeError::file("create", path))?;
    file.write_all(bytes).map_err(RuntimeError::file("write", path))
}

/// Makes a folder of ours with its parents; an existing one is fine.
pub fn make(path: &Path) -> Result<(), RuntimeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(RuntimeError::file("make the folder", path))
}

fn new_folder(path: &Path) -> Result<(), RuntimeError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(RuntimeError::file("make the folder", path))
}

fn remove(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RuntimeError::file("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn names(path: &Path) -> Result<Vec<String>, RuntimeError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RuntimeError::file("list", path)(error)),
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
