//! SELinux on this node: what its policy says of containers, whether it has a context, and labels of files. The
//! files of the policy are read once, at the daemon's start.

use crate::error::RuntimeError;
use crate::store::container::ContainerRecord;
use crate::store::pod::Pod;
use shim_model::kind::Refused;
use shim_model::labels::selinux::{self, Contexts, Policy, Support};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

/// Where the kernel is asked.
const KERNEL: &str = "/sys/fs/selinux";

/// What this node has.
pub(crate) fn probe() -> Support {
    let known = std::fs::read(Path::new(KERNEL).join("enforce"));
    if known.is_err() {
        return Support::Off;
    }
    match policy() {
        Ok(policy) => Support::On(policy),
        Err(why) => {
            tracing::warn!(why, "SELinux is on, but containers get no labels");
            Support::Unusable(why)
        }
    }
}

fn policy() -> Result<Policy, String> {
    let read =
        |path: String| std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
    let config = read("/etc/selinux/config".to_owned())?;
    let name = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let name = name.ok_or("/etc/selinux/config names no policy")?.trim();
    let path = format!("/etc/selinux/{name}/contexts/lxc_contexts");
    let policy = Policy::parse(&read(path.clone())?);
    let policy = policy.ok_or_else(|| format!("{path} has no contexts of containers"))?;
    let process = policy.process.to_string();
    if is_known(&process) { Ok(policy) } else { Err(format!("the policy does not have {process}")) }
}

/// Whether the policy has a context (`selinux_check_context(3)`).
fn is_known(context: &str) -> bool {
    std::fs::write(Path::new(KERNEL).join("context"), context).is_ok()
}

/// Refuses contexts that the policy does not have.
pub(crate) fn check(contexts: &Contexts) -> Result<(), Refused> {
    let both = [&contexts.process, &contexts.files];
    let unknown = both.into_iter().find(|context| !is_known(context));
    unknown.map_or(Ok(()), |context| Err(selinux::unknown(context)))
}

/// A level that no pod has yet, if there is one to be found.
pub(crate) fn fresh_level(pods: &[Arc<Pod>]) -> String {
    let level = |pod: &Arc<Pod>| selinux::level_of(pod.record.setup.labels.files.as_deref());
    let taken: BTreeSet<String> = pods.iter().map(level).collect();
    let mut tries = std::iter::repeat_with(|| selinux::fresh(rand::random())).take(64);
    tries.find(|level| !taken.contains(level)).unwrap_or_else(|| selinux::fresh(rand::random()))
}

/// Labels a file of ours that containers read.
pub(crate) fn label(path: &Path, context: Option<&str>) -> Result<(), RuntimeError> {
    let Some(context) = context else { return Ok(()) };
    let context = CString::new(context).unwrap_or_default();
    shim_sys::label::relabel(path, &context)
        .map_err(RuntimeError::system(format!("label {}", path.display())))
}

/// Labels the volumes of a container that asked for it, with everything below them. `create` = one that is not there
/// is made here already, because the start, which makes the others, labels nothing.
pub(crate) fn relabel(record: &ContainerRecord, create: bool) -> Result<(), RuntimeError> {
    if record.labels.files.is_none() {
        return Ok(());
    }
    let asked = record.config.mounts.iter().filter(|mount| mount.selinux_relabel);
    for mount in asked.filter(|mount| mount.image.is_none()) {
        let path = Path::new(&mount.host_path);
        if create && !path.exists() {
            std::fs::create_dir_all(path)
                .map_err(RuntimeError::file("make the host path", path))?;
        }
        label(path, record.labels.files.as_deref())?;
    }
    Ok(())
}
