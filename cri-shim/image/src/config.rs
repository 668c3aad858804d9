//! Settings of the image side; plain values, given by whoever reads configuration files.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where things are and how much may happen at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Durable data: layers, manifests, names, writable layers.
    pub root: PathBuf,
    /// Folder of `HOST/hosts.toml` files.
    pub registry_config: PathBuf,
    /// `auth.json` for pulls that bring no credentials.
    pub auth_file: PathBuf,
    /// Layers of one pull that are fetched at once.
    pub layers_at_once: usize,
    /// `GOARCH` of this machine: `amd64`, `arm64`.
    pub architecture: String,
}

impl ImageConfig {
    /// The defaults below a data folder.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            registry_config: PathBuf::from("/etc/wherry/certs.d"),
            auth_file: PathBuf::from("/etc/wherry/auth.json"),
            layers_at_once: 3,
            architecture: architecture(std::env::consts::ARCH).to_owned(),
        }
    }
}

/// Rust's name of an architecture to Go's, which images use.
pub fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
