//! Standard input as a file that the daemon can read from anywhere in it: archives name their parts at the
//! end. The file has no name, so nothing is left behind however we end; the daemon, which sees our processes,
//! opens it by our descriptor.

use crate::cli::failure::CliError;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What came in; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Spool(File);

impl Spool {
    /// All of standard input, on the disk below the daemon's `root`. Blocks.
    pub(super) fn of_stdin(root: &Path) -> Result<Self, CliError> {
        let path = root.join("tmp").join(format!("stdin-{}-", std::process::id()));
        let failed = |error: io::Error| {
            CliError::new(format!("keep standard input below {}: {error}", root.display()))
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
        Ok(Self(file))
    }

    /// Where the daemon finds it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
