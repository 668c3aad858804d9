//! Results of attachments, kept where libcni keeps them and in its form
//! (`CACHE/results/NETWORK-CONTAINERID-IFNAME`), so that DEL has what ADD was given, whoever runs it.

use super::native::veth::POD_END;
use crate::error::RuntimeError;
use crate::store::disk;
use serde_json::{Map, Value, json};
use shim_model::cni::conf::ConfList;
use shim_model::id::SandboxId;
use std::path::{Path, PathBuf};

/// Our own key beside libcni's: whether the pod's link was made in process, so that DEL knows what rules
/// of a firewall there can be.
const IN_PROCESS: &str = "wherry.dev/in-process";

/// Begins the name of a file that is being written; no network's name can begin with a dot.
const HALF: &str = ".wherry-";

/// Removes what a killed daemon had begun to write. Nothing refers to it: ADD comes after the file.
pub fn sweep(cache: &Path) {
    let entries = std::fs::read_dir(cache.join("results")).into_iter().flatten().flatten();
    for half in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(HALF)) {
        drop(std::fs::remove_file(half.path()));
    }
}

/// What is kept of an attachment.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The configuration as it was at ADD.
    pub list: ConfList,
    /// Id of the pod; also those of other runtimes are found here.
    pub id: String,
    /// The pod's namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS` of ADD.
    pub args: Vec<(String, String)>,
    /// Capability arguments of ADD.
    pub capabilities: Map<String, Value>,
    /// The last plugin's result, if ADD got so far.
    pub result: Option<Value>,
    /// The link was made in process.
    pub in_process: bool,
}

impl Kept {
    /// Keeps it: before ADD without a result, afterwards with it.
    pub fn put(&self, cache: &Path) -> Result<(), RuntimeError> {
        let folder = cache.join("results");
        disk::make(&folder)?;
        let content = json!({
            "kind": "cniCacheV1",
            "containerId": self.id,
            "config": data_encoding::BASE64.encode(self.list.text.as_bytes()),
            "ifName": POD_END,
            "networkName": self.list.name,
            "netns": self.netns,
            "cniArgs": self.args,
            "capabilityArgs": self.capabilities,
            "result": self.result,
            IN_PROCESS: self.in_process,
        });
        let file = path(cache, &self.list.name, &self.id);
        let half = folder.join(format!("{HALF}{}-{POD_END}", self.id));
        let written = disk::write_file(&half, content.to_string().as_bytes()).and_then(|()| {
            std::fs::rename(&half, &file).map_err(RuntimeError::file("replace", file))
        });
        if written.is_err() {
            drop(std::fs::remove_file(&half));
        }
        written
    }

    /// Forgets it; a missing one is done.
    pub fn remove(&self, cache: &Path) -> Result<(), RuntimeError> {
        let file = path(cache, &self.list.name, &self.id);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RuntimeError::file("remove", file)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn path(cache: &Path, network: &str, id: &str) -> PathBuf {
    cache.join("results").join(format!("{network}-{id}-{POD_END}"))
}

/// What was kept of a pod's attachment; looked for in this network first, then in any.
pub fn find(cache: &Path, id: &SandboxId, network: Option<&str>) -> Option<Kept> {
    let likely = network.map(|network| path(cache, network, id.as_str()));
    if let Some(kept) = likely.and_then(|path| read(&path)) {
        return Some(kept);
    }
    let end = format!("-{id}-{POD_END}");
    files(cache).filter(|path| path.to_string_lossy().ends_with(&end)).find_map(|path| read(&path))
}

/// Every attachment of a pod's first interface, also those of other runtimes that keep theirs here.
pub fn all(cache: &Path) -> Vec<Kept> {
    files(cache).filter_map(|path| read(&path)).collect()
}

fn files(cache: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(cache.join("results")).into_iter().flatten().flatten();
    let whole = |name: &str| name.ends_with(&format!("-{POD_END}")) && !name.starts_with(HALF);
    let entries = entries.filter(move |entry| whole(&entry.file_name().to_string_lossy()));
    entries.map(|entry| entry.path())
}

fn read(path: &Path) -> Option<Kept> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "a network result cannot be read");
            }
            return None;
        }
    };
    let kept = parse(&bytes);
    if kept.is_none() {
        tracing::warn!(path = %path.display(), "a network result is not understood");
    }
    kept
}

fn parse(bytes: &[u8]) -> Option<Kept> {
    let content: Value = serde_json::from_slice(bytes).ok()?;
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    let config = data_encoding::BASE64.decode(text("config")?.as_bytes()).ok()?;
    let args = content.get("cniArgs").cloned().unwrap_or_default();
    let capabilities = content.get("capabilityArgs").and_then(Value::as_object);
    Some(Kept {
        list: ConfList::parse(std::str::from_utf8(&config).ok()?).ok()?,
        id: text("containerId")?.to_owned(),
        netns: text("netns").unwrap_or_default().into(),
        args: serde_json::from_value(args).unwrap_or_default(),
        capabilities: capabilities.cloned().unwrap_or_default(),
        result: content.get("result").filter(|result| !result.is_null()).cloned(),
        in_process: content.get(IN_PROCESS).and_then(Value::as_bool).unwrap_or_default(),
    })
}
