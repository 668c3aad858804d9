//! Device nodes for containers that cannot make any: inside a user namespace the kernel makes none, and
//! opens none of a file system that was mounted there. They are made here, on a small tmpfs of the node's,
//! and handed over as a detached mount. Which nodes, and whose they are, is the plan's.

use crate::error::RuntimeError;
use shim_model::plan::DeviceNode;
use shim_sys::error::SysError;
use shim_sys::mount::{self, Flags};
use shim_sys::rooted::{self, Device, Make};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// A `/dev` with these nodes, detached; it and folders in it belong to `owner`.
pub fn folder(
    nodes: &[DeviceNode],
    owner: (u32, u32),
    label: Option<&str>,
) -> Result<OwnedFd, RuntimeError> {
    let root = tmpfs(c"65536k", owner, label).map_err(RuntimeError::system("mount a /dev"))?;
    for node in nodes {
        let path = node.path.to_bytes();
        let below = path.strip_prefix(b"/dev").unwrap_or(path);
        make(&root, &CString::new(below).unwrap_or_default(), node, owner).map_err(told(node))?;
    }
    Ok(root)
}

/// One node, detached.
pub fn node(node: &DeviceNode) -> Result<OwnedFd, RuntimeError> {
    let made = tmpfs(c"4k", (0, 0), None).and_then(|root| {
        make(&root, c"/node", node, (0, 0))?;
        rooted::open(&root, c"/node").and_then(|found| mount::clone_descriptor(found, false))
    });
    made.map_err(told(node))
}

fn tmpfs(size: &CStr, (uid, gid): (u32, u32), label: Option<&str>) -> Result<OwnedFd, SysError> {
    let label = label.map(|label| CString::new(label).unwrap_or_default());
    let [uid, gid] = [uid, gid].map(|id| CString::new(id.to_string()).unwrap_or_default());
    let mut options: Vec<(&CStr, &CStr)> =
        vec![(c"mode", c"755"), (c"size", size), (c"uid", &uid), (c"gid", &gid)];
    options.extend(label.as_deref().map(|label| (c"context", label)));
    mount::tmpfs(&options, Flags::NOSUID)
}

fn make(root: &OwnedFd, path: &CStr, node: &DeviceNode, owner: (u32, u32)) -> Result<(), SysError> {
    if let Some(parent) = parent(path) {
        rooted::ensure_owned(root, &parent, Make::Folder(0o755), owner)?;
    }
    let DeviceNode { block, number, mode, owner, .. } = *node;
    rooted::device(root, path, Device { block, number, mode, owner })?;
    rooted::set_mode(root, path, mode)
}

fn parent(path: &CStr) -> Option<CString> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').filter(|end| *end > 0)?;
    CString::new(bytes.get(..end)?).ok()
}

fn told(node: &DeviceNode) -> impl FnOnce(SysError) -> RuntimeError {
    RuntimeError::system(format!("make the device {}", node.path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::{folder, node};
    use shim_model::plan::DeviceNode;
    use shim_sys::{fd, path, rooted};

    fn device(path: &std::ffi::CStr) -> DeviceNode {
        let (number, mode, owner) = ((1, 5), 0o666, (70_000, 70_005));
        DeviceNode { path: path.to_owned(), block: false, number, mode, owner }
    }

    #[test]
    fn root_nodes_have_the_mode_and_the_owner_that_the_plan_says() {
        if !shim_sys::credentials::ids_are(0, 0).unwrap() {
            eprintln!("skipped: needs root");
            return;
        }
        let dev =
            folder(&[device(c"/dev/zero"), device(c"/dev/a/b")], (70_000, 70_000), None).unwrap();
        let look = |name: &std::ffi::CStr| path::describe(rooted::open(&dev, name).unwrap());
        for name in [c"/zero", c"/a/b"] {
            let found = look(name).unwrap();
            assert!(found.is_character(), "{name:?}");
            assert_eq!((found.mode & 0o777, found.uid, found.gid), (0o666, 70_000, 70_005));
        }
        assert_eq!(look(c"/a").unwrap().uid, 70_000);
        let alone = node(&device(c"/anywhere")).unwrap();
        assert_eq!(fd::kind(alone).unwrap(), fd::FileKind::CharDevice(1, 5));
    }
}
