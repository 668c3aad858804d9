//! Whether mounts of a request can travel as they are to: a source hands on and takes only what its own mount
//! on the node does. Looks at the node; what is needed for what is the model's.

use crate::error::RuntimeError;
use shim_model::container::config::{ContainerConfig, Propagation};
use shim_model::kind::Refused;
use shim_model::mountinfo;
use shim_sys::mount;
use std::path::Path;

/// Refuses mounts whose source cannot propagate as asked.
pub(crate) fn check(config: &ContainerConfig) -> Result<(), RuntimeError> {
    let asked = config.mounts.iter().enumerate();
    let mut asked = asked.filter(|(_, mount)| mount.propagation != Propagation::Private).peekable();
    if asked.peek().is_none() {
        return Ok(());
    }
    let path = "/proc/self/mountinfo";
    let table = std::fs::read_to_string(path).map_err(RuntimeError::file("read", path))?;
    for (index, mount) in asked {
        // One that will be made is on the mount of the folder that it will be made in.
        let there = Path::new(&mount.host_path).ancestors().find(|path| path.exists());
        let id = mount::id_of(there.unwrap_or(Path::new("/")))
            .map_err(RuntimeError::system(format!("look at the mount of {}", mount.host_path)))?;
        let travels = mountinfo::travels(&table, id);
        if !travels.is_some_and(|travels| travels.allows(mount.propagation)) {
            let allowed = match mount.propagation {
                Propagation::Bidirectional => "PROPAGATION_PRIVATE: its mount is not shared",
                Propagation::HostToContainer | Propagation::Private => {
                    "PROPAGATION_PRIVATE: its mount is neither shared nor a slave"
                }
            };
            let found = format!("{:?} of {}", mount.propagation, mount.host_path);
            let field = format!("config.mounts[{index}].propagation");
            return Err(Refused::new(field, found, allowed).into());
        }
    }
    Ok(())
}
