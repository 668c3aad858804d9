//! Results of attachments, kept where libcni keeps them and in its form
//! (`CACHE/results/NETWORK-CONTAINERID-IFNAME`), so that DEL has what ADD was given, whoever runs it.

use super::Attachment;
use crate::error::RuntimeError;
use serde_json::{Map, Value, json};
use shim_model::cni::conf::ConfList;
use std::path::{Path, PathBuf};

/// What was kept of an attachment.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The configuration as it was at ADD.
    pub list: ConfList,
    /// Capability arguments of ADD.
    pub capabilities: Map<String, Value>,
    /// The last plugin's result, if ADD got so far.
    pub result: Option<Value>,
}

fn path(cache: &Path, network: &str, attachment: &Attachment) -> PathBuf {
    cache.join("results").join(format!("{network}-{}-eth0", attachment.id))
}

/// Keeps an attachment: before ADD without a result, afterwards with it.
#[expect(clippy::too_many_arguments, reason = "the fields of libcni's own record")]
pub fn put(
    cache: &Path,
    list: &ConfList,
    attachment: &Attachment,
    capabilities: &Map<String, Value>,
    netns: &Path,
    result: Option<&Value>,
) -> Result<(), RuntimeError> {
    let file = path(cache, &list.name, attachment);
    let folder = cache.join("results");
    std::fs::create_dir_all(&folder).map_err(RuntimeError::file("make the folder", folder))?;
    let content = json!({
        "kind": "cniCacheV1",
        "containerId": attachment.id,
        "config": data_encoding::BASE64.encode(list.text.as_bytes()),
        "ifName": "eth0",
        "networkName": list.name,
        "netns": netns,
        "capabilityArgs": capabilities,
        "result": result,
    });
    let beside = file.with_extension("new");
    std::fs::write(&beside, content.to_string()).map_err(RuntimeError::file("write", &beside))?;
    std::fs::rename(&beside, &file).map_err(RuntimeError::file("replace", file))
}

/// What was kept of a pod's attachment, whatever the network was called.
pub fn find(cache: &Path, attachment: &Attachment) -> Result<Option<Kept>, RuntimeError> {
    let suffix = format!("-{}-eth0", attachment.id);
    let entries = std::fs::read_dir(cache.join("results")).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix)) {
        let file = entry.path();
        let bytes = std::fs::read(&file).map_err(RuntimeError::file("read", &file))?;
        if let Some(kept) = parse(&bytes) {
            return Ok(Some(kept));
        }
        tracing::warn!(path = %file.display(), "a kept network result cannot be read");
    }
    Ok(None)
}

fn parse(bytes: &[u8]) -> Option<Kept> {
    let content: Value = serde_json::from_slice(bytes).ok()?;
    let text = data_encoding::BASE64.decode(content.get("config")?.as_str()?.as_bytes()).ok()?;
    let list = ConfList::parse(std::str::from_utf8(&text).ok()?).ok()?;
    let capabilities =
        content.get("capabilityArgs").and_then(Value::as_object).cloned().unwrap_or_default();
    let result = content.get("result").filter(|result| !result.is_null()).cloned();
    Some(Kept { list, capabilities, result })
}

/// Forgets an attachment; a missing one is done.
pub fn remove(cache: &Path, list: &ConfList, attachment: &Attachment) -> Result<(), RuntimeError> {
    let file = path(cache, &list.name, attachment);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file("remove", file)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
