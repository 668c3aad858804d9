//! A container's writable layer: `writable/ID/{upper,work}` on the data disk. Named by the container's
//! id, so that after a reboot it is known whose it was. Also the layer below every image, `mountpoints/`:
//! what each container mounts on, so that no container writes folders of its own for that.

use crate::error::ImageError;
use crate::usage;
use shim_model::id::ContainerId;
use shim_sys::path;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// All writable layers.
#[derive(Clone, Debug)]
pub struct Writable {
    dir: PathBuf,
    mount_points: PathBuf,
}

/// Folders that every container mounts on.
const FOLDERS: [&str; 4] = ["proc", "sys", "dev", "etc"];
/// Files that every container has from its pod.
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// One of them.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// overlayfs's `upperdir`.
    pub upper: PathBuf,
    /// overlayfs's `workdir`.
    pub work: PathBuf,
}

impl Writable {
    /// Below a data folder; makes its own.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let dir = root.join("writable");
        fs::create_dir_all(&dir).map_err(ImageError::file("make the folder", &dir))?;
        let mount_points = root.join("mountpoints");
        make_mount_points(&mount_points)?;
        Ok(Self { dir, mount_points })
    }

    /// The lowest layer of every container: empty mount points, which an image may have too. On the
    /// same file system as all other layers: with two, overlayfs would show files with other device
    /// numbers than their folders.
    pub fn mount_points(&self) -> &Path {
        &self.mount_points
    }

    /// The layer of a container, made if it is missing. A work folder that an earlier mount left is
    /// emptied, because a `volatile` overlay refuses to use it again. The root of what the container writes
    /// belongs to `owner`: the root of its user namespace, as the node counts.
    pub fn prepare(&self, id: &ContainerId, owner: (u32, u32)) -> Result<Prepared, ImageError> {
        let own = self.dir.join(id.as_str());
        let prepared = Prepared { upper: own.join("upper"), work: own.join("work") };
        fs::create_dir_all(&prepared.upper)
            .map_err(ImageError::file("make the folder", &prepared.upper))?;
        if prepared.work.exists() {
            self.remove_below(id, b"work")?;
        }
        fs::create_dir_all(&prepared.work)
            .map_err(ImageError::file("make the folder", &prepared.work))?;
        fs::set_permissions(&prepared.upper, Permissions::from_mode(0o755))
            .map_err(ImageError::file("change the mode of", &prepared.upper))?;
        std::os::unix::fs::chown(&prepared.upper, Some(owner.0), Some(owner.1))
            .map_err(ImageError::file("change the owner of", &prepared.upper))?;
        Ok(prepared)
    }

    fn remove_below(&self, id: &ContainerId, name: &[u8]) -> Result<(), ImageError> {
        let own = path::open_folder(&self.dir.join(id.as_str()))
            .map_err(ImageError::system("open a writable layer"))?;
        path::remove_all(own, name).map_err(ImageError::system("empty a writable layer"))
    }

    /// Removes the layer of a container; a missing one is done.
    pub fn remove(&self, id: &ContainerId) -> Result<(), ImageError> {
        let dir =
            path::open_folder(&self.dir).map_err(ImageError::system("open the writable layers"))?;
        path::remove_all(dir, id.as_str().as_bytes())
            .map_err(ImageError::system(format!("remove the writable layer of {id}")))
    }

    /// Ids of every writable layer.
    pub fn list(&self) -> Vec<ContainerId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| ContainerId::parse(&entry.file_name().to_string_lossy()).ok())
            .collect()
    }

    /// Bytes and inodes of one layer; walks it, so not on a request's way.
    pub fn usage(&self, id: &ContainerId) -> (u64, u64) {
        usage::of_folder(&self.dir.join(id.as_str()).join("upper"))
    }

    /// Where all of them are.
    pub fn folder(&self) -> &Path {
        &self.dir
    }
}

/// Makes what is missing. The modes are those of an image, whatever umask the daemon has.
fn make_mount_points(dir: &Path) -> Result<(), ImageError> {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(ImageError::file("change the mode of", path))
    };
    for path in FOLDERS.map(|name| dir.join(name)) {
        fs::create_dir_all(&path).map_err(ImageError::file("make the folder", &path))?;
        mode(&path, 0o755)?;
    }
    for path in FILES.map(|name| dir.join(name)) {
        let opened = fs::File::options().append(true).create(true).open(&path);
        opened.map_err(ImageError::file("make the file", &path))?;
        mode(&path, 0o644)?;
    }
    mode(dir, 0o755)
}
