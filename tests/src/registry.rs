//! Debian's `docker-registry` in the space of a daemon, on its loopback, with images that are put
//! straight into its storage. Ends with its value; a test ends it before it counts what is left.

use crate::daemon::Daemon;
use crate::images::{Image, digest};
use crate::space::{children, signal_kill};
use crate::{say, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where it listens; loopback, so it is spoken to without TLS.
pub const HOST: &str = "127.0.0.1:5000";

const PORT: u16 = 5000;

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    storage: PathBuf,
}

impl Registry {
    /// Starts it. `None`, said aloud, where the program is not installed.
    pub fn start(daemon: &Daemon) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            say("skipped: docker-registry is not there");
            return None;
        }
        let storage = daemon.beside("registry-storage");
        let config = daemon.beside("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {HOST}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = daemon.space().command(Path::new("docker-registry"));
        command.arg("serve").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().unwrap(), storage };
        until("a registry", || daemon.space().listens(PORT).then_some(()));
        Some(registry)
    }

    /// Puts an image into it; what to pull.
    pub fn publish(&self, repository: &str, tag: &str, image: &Image) -> String {
        let root = self.storage.join("docker/registry/v2");
        let own = root.join("repositories").join(repository);
        for blob in image.blobs() {
            let hex = hex(blob);
            write(&root.join("blobs/sha256").join(&hex[..2]).join(&hex).join("data"), blob);
            link(&own.join("_layers/sha256").join(&hex), blob);
        }
        let manifests = own.join("_manifests");
        let hex = hex(&image.manifest);
        link(&manifests.join("revisions/sha256").join(&hex), &image.manifest);
        link(&manifests.join("tags").join(tag).join("current"), &image.manifest);
        link(&manifests.join("tags").join(tag).join("index/sha256").join(hex), &image.manifest);
        format!("{HOST}/{repository}:{tag}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for registry in children(self.child.id()) {
            let _gone_is_fine = signal_kill(registry);
        }
        drop(self.child.wait());
    }
}

fn hex(blob: &[u8]) -> String {
    digest(blob).trim_start_matches("sha256:").to_owned()
}

fn link(folder: &Path, blob: &[u8]) {
    write(&folder.join("link"), digest(blob).as_bytes());
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
