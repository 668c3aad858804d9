//! A container's root and the other trees that its plan names, as detached mounts: built where the
//! host's mounts are visible, handed over by descriptor. Blocks (a host path may lie on a slow disk):
//! call it from a blocking thread.

use crate::error::RuntimeError;
use crate::given;
use crate::idmap::Mapped;
use crate::store::disk::StateDir;
use shim_image::images::Images;
use shim_image::writable::Prepared;
use shim_model::id::SandboxId;
use shim_model::overlay::{self, Writable};
use shim_model::plan::Source;
use shim_sys::error::Errno;
use shim_sys::mount::{self, Flags, NewFs};
use shim_sys::namespace::{self, Namespace};
use shim_sys::path;
use shim_sys::rooted::{self, Make};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mounts layers (top first) and a writable layer, detached. `volatile`: the upper layer is never
/// flushed, because it does not outlive the boot in any useful way. With a user namespace the layers are
/// shown with its ids and stay as they are; what is written has the ids that the node counts.
pub fn overlay(
    layers: &[PathBuf],
    writable: &Prepared,
    mapped: Option<&Mapped>,
    label: Option<&str>,
) -> Result<OwnedFd, RuntimeError> {
    let writable = Writable { upper: writable.upper.clone(), work: writable.work.clone() };
    mount_overlay(layers, Some(&writable), mapped, label)
}

/// Mounts layers read-only, detached: the root of an image volume.
pub fn read_only(
    layers: &[PathBuf],
    mapped: Option<&Mapped>,
    label: Option<&str>,
) -> Result<OwnedFd, RuntimeError> {
    match (layers, mapped) {
        ([only], Some(mapped)) => layer(only, mapped),
        ([only], None) => clone_tree(only, false),
        _ => mount_overlay(layers, None, mapped, label),
    }
}

/// One layer with the ids of a user namespace.
fn layer(folder: &Path, mapped: &Mapped) -> Result<OwnedFd, RuntimeError> {
    let tree = clone_tree(folder, false)?;
    mapped.show(&tree, &format!("the layer {}", folder.display())).map(|()| tree)
}

fn mount_overlay(
    layers: &[PathBuf],
    writable: Option<&Writable>,
    mapped: Option<&Mapped>,
    label: Option<&str>,
) -> Result<OwnedFd, RuntimeError> {
    let doing = || format!("mount the overlay of {} layers", layers.len());
    let fs = NewFs::open(c"overlay").map_err(RuntimeError::system(doing()))?;
    // Taken by overlayfs at the mount; a detached one is gone when its last descriptor closes.
    let mut shown = Vec::new();
    for (key, value) in overlay::options(layers, writable)? {
        let name = CString::new(key).unwrap_or_default();
        // overlayfs itself does not map ids, its layers do.
        let set = if let Some(mapped) = mapped.filter(|_| key == overlay::LAYER) {
            shown.push(layer(Path::new(&value), mapped)?);
            shown.last().map_or(Ok(&fs), |layer| fs.descriptor(&name, layer))
        } else {
            fs.text(&name, &CString::new(value).unwrap_or_default())
        };
        set.map_err(RuntimeError::system(doing()))?;
    }
    if let Some(label) = label {
        // Whatever the layers are labelled as: every file has this context.
        let label = CString::new(label).unwrap_or_default();
        fs.text(c"context", &label).map_err(RuntimeError::system(doing()))?;
    }
    if writable.is_some() {
        // Missing before Linux 5.10; then the layer is flushed like any other.
        let _older_kernel = fs.flag(c"volatile");
    }
    fs.mount(Flags::NONE).map_err(RuntimeError::system(doing()))
}

/// A detached copy of the tree at a path of our own.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, RuntimeError> {
    let text = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    mount::clone_path(&text, recursive)
        .map_err(RuntimeError::system(format!("take the mounts of {}", path.display())))
}

/// What [`open`] needs to find sources.
#[derive(Debug)]
pub struct Finder<'a> {
    /// Images, for image volumes.
    pub images: &'a Images,
    /// The state folder, for pod files.
    pub disk: &'a StateDir,
    /// The pod.
    pub pod: &'a SandboxId,
    /// Its own user namespace.
    pub mapped: Option<&'a Mapped>,
    /// The SELinux context of the container's files.
    pub label: Option<&'a str>,
}

/// Opens the descriptors of a plan, in slot order. `root` is the container's mounted root.
pub fn open(
    sources: &[Source],
    root: OwnedFd,
    finder: &Finder<'_>,
) -> Result<Vec<OwnedFd>, RuntimeError> {
    let mut opened = Vec::with_capacity(sources.len());
    for source in sources.iter().filter(|source| **source != Source::Root) {
        opened.push(one(source, root.as_fd(), finder)?);
    }
    // The root comes first in every plan; it is moved in last because volumes are taken from it.
    opened.insert(0, root);
    Ok(opened)
}

/// Tries what a request names and only an opening can tell: image volumes. They are opened again at the
/// start.
pub fn try_images(sources: &[Source], finder: &Finder<'_>) -> Result<(), RuntimeError> {
    for source in sources {
        if let Source::ImageVolume { image, sub_path } = source {
            image_volume(image, sub_path, finder)?;
        }
    }
    Ok(())
}

fn one(
    source: &Source,
    root: BorrowedFd<'_>,
    finder: &Finder<'_>,
) -> Result<OwnedFd, RuntimeError> {
    match source {
        Source::Root => {
            shim_sys::fd::duplicate(root).map_err(RuntimeError::system("duplicate the root"))
        }
        Source::HostTree { path, create } => host_tree(path, *create),
        Source::MappedHostTree { path, create } => {
            let tree = host_tree(path, *create)?;
            let none = || RuntimeError::Unsupported("map ids without a user namespace".to_owned());
            let mapped = finder.mapped.ok_or_else(none)?;
            let what = format!("the host path {}", path.to_string_lossy());
            mapped.show(&tree, &what).map(|()| tree)
        }
        Source::PodFile(name) => {
            let tree = clone_tree(&finder.disk.pod(finder.pod).join("files").join(name), false)?;
            finder.mapped.map_or(Ok(()), |mapped| mapped.show(&tree, name)).map(|()| tree)
        }
        Source::NodeMounts => {
            namespace::own(Namespace::Mount).map_err(RuntimeError::system("open the node's mounts"))
        }
        Source::DeviceFolder { nodes, owner } => given::folder(nodes, *owner, finder.label),
        Source::Device(node) => given::node(node),
        Source::ImageVolume { image, sub_path } => image_volume(image, sub_path, finder),
        Source::AnonymousVolume(path) => {
            // A second mount of a folder of the root itself: the image's content and owner are there
            // already, and it stays writable where the root is read-only.
            let text = CString::new(path.as_str()).unwrap_or_default();
            let doing = || format!("make the volume {path}");
            let owner = finder.mapped.map_or((0, 0), |mapped| mapped.maps.root());
            let folder = rooted::ensure_owned(root, &text, Make::Folder(0o755), owner)
                .map_err(RuntimeError::system(doing()))?;
            mount::clone_descriptor(folder, false).map_err(RuntimeError::system(doing()))
        }
    }
}

fn host_tree(path: &CStr, create: bool) -> Result<OwnedFd, RuntimeError> {
    let shown = path.to_string_lossy().into_owned();
    match mount::clone_path(path, true) {
        Err(error) if create && error.errno() == Errno::ENOENT => {}
        cloned => {
            return cloned.map_err(RuntimeError::system(format!(
                "take the mounts of the host path {shown}"
            )));
        }
    }
    std::fs::create_dir_all(&shown).map_err(RuntimeError::file("make the host path", &shown))?;
    mount::clone_path(path, true)
        .map_err(RuntimeError::system(format!("take the mounts of the host path {shown}")))
}

fn image_volume(name: &str, sub_path: &str, finder: &Finder<'_>) -> Result<OwnedFd, RuntimeError> {
    let doing = || format!("ImageVolumeMountFailed: mount the image {name}");
    let found = finder.images.find(name).map_err(RuntimeError::image(doing()))?;
    let image = found.ok_or_else(|| RuntimeError::NoImage(name.to_owned()))?;
    let root = read_only(&finder.images.layer_folders(&image), finder.mapped, finder.label)?;
    let readonly = mount::Change {
        set: Flags::READONLY.and(Flags::NODEV).and(Flags::NOSUID),
        recursive: true,
        ..mount::Change::default()
    };
    mount::change(&root, readonly).map_err(RuntimeError::system(doing()))?;
    if sub_path.is_empty() {
        return Ok(root);
    }
    // No link on the way: the image could point it anywhere in itself, and its author is not the pod's.
    let path = sub_path.trim_end_matches('/').as_bytes();
    let folder = path::open_beneath(&root, path)
        .map_err(RuntimeError::system(format!("{}, its folder {sub_path}", doing())))?;
    mount::clone_descriptor(folder, false).map_err(RuntimeError::system(doing()))
}
