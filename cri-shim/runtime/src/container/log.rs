//! Log files: opened here, where the host's folders are visible; written by the monitor. `ReopenContainerLog`
//! hands the monitor a new file after the kubelet renamed the old one.

use crate::error::RuntimeError;
use crate::runtime::{Runtime, blocking};
use shim_model::wire::ToMonitor;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// `O_NOFOLLOW`: a link in place of the file would lead the log elsewhere (open(2), all Linux).
const NO_FOLLOW: i32 = 0o400_000;

/// Opens a log for appending, making it and its folder. A link in its place is refused.
pub(crate) fn open_log(path: &Path) -> Result<File, RuntimeError> {
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(RuntimeError::file("make the log folder", folder))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(NO_FOLLOW)
        .open(path)
        .map_err(RuntimeError::file("open the log", path))
}

impl Runtime {
    /// Lets a running container's log go on in a new file at the same path.
    pub async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "reopen its log"));
        }
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("reopen a log in it")?;
        let path = container.record.log_path.clone();
        let file = blocking(move || open_log(&path)).await?;
        let order = ToMonitor::Reopen { container: container.record.id.clone() };
        monitor.order(order, &[file.as_fd()]).await
    }
}
