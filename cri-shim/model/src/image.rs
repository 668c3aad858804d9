//! What an image says about its processes: a strict view of the OCI image configuration. The raw
//! bytes stay the truth for digests; this holds only what a container is made from. Everything in
//! here is hostile text.

use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest configuration that is read.
pub const CONFIG_BYTES: usize = 8 << 20;

/// The `config` object of an image, and its place in the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `KEY=value`.
    pub env: Vec<String>,
    /// First part of the command.
    pub entrypoint: Vec<String>,
    /// Second part of the command.
    pub cmd: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid` or nothing.
    pub user: String,
    /// Working folder; may be empty.
    pub working_dir: String,
    /// Folders that want to be volumes.
    pub volumes: Vec<String>,
    /// Signal that stops it; may be empty.
    pub stop_signal: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Labels; inert.
    pub labels: BTreeMap<String, String>,
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// RFC 3339, as the image says it.
    pub created: String,
    /// Diff ids of its layers, bottom first.
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<RawProcess>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
}

impl ImageConfig {
    /// Reads a configuration blob (OCI image specification, "Image Configuration"; Docker's is the same).
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > CONFIG_BYTES {
            return Err(Refused::new(
                "image config",
                format!("{} bytes", bytes.len()),
                "up to 8 MiB",
            ));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            Refused::new("image config", error.to_string(), "an OCI image configuration")
        })?;
        let process = raw.config.unwrap_or_default();
        let names = |map: Option<BTreeMap<String, serde_json::Value>>| {
            map.unwrap_or_default().into_keys().collect()
        };
        Ok(Self {
            env: process.env.unwrap_or_default(),
            entrypoint: process.entrypoint.unwrap_or_default(),
            cmd: process.cmd.unwrap_or_default(),
            user: process.user.unwrap_or_default(),
            working_dir: process.working_dir.unwrap_or_default(),
            volumes: names(process.volumes),
            stop_signal: process.stop_signal.unwrap_or_default(),
            exposed_ports: names(process.exposed_ports),
            labels: process.labels.unwrap_or_default(),
            os: raw.os,
            architecture: raw.architecture,
            created: raw.created.unwrap_or_default(),
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ImageConfig;

    #[test]
    fn nulls_and_missing_parts_are_empty() {
        let text = br#"{"os":"linux","architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"Volumes":{"/data":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert_eq!(
            (config.env.len(), config.cmd, config.volumes),
            (0, vec!["sh".to_owned()], vec!["/data".to_owned()])
        );
        assert_eq!(config.diff_ids, ["sha256:00"]);
    }

    #[test]
    fn a_command_that_is_text_is_refused() {
        assert!(ImageConfig::parse(br#"{"config":{"Cmd":"sh -c x"},"rootfs":{}}"#).is_err());
        assert!(ImageConfig::parse(b"[]").is_err());
    }
}
