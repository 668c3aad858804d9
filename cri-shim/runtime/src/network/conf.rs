//! Which CNI configuration counts: the first readable one in lexical order, read again when the folder
//! changes. A poll of a few names every two seconds: no descriptor to lose, and folders that appear
//! later or are replaced whole are seen too.

use parking_lot::RwLock;
use serde_json::Value;
use shim_model::cni::conf::ConfList;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often the folder is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Name and change time of every file: what is compared.
type Seen = Vec<(PathBuf, Option<SystemTime>, u64)>;
type Found = Result<Arc<ConfList>, String>;

/// The configuration that counts now.
#[derive(Clone, Debug)]
pub struct Configured {
    now: Arc<RwLock<(Seen, Found)>>,
    folder: Arc<PathBuf>,
}

impl Configured {
    /// Reads the folder now, and again whenever it changes.
    pub fn watch(folder: PathBuf) -> Self {
        let seen = look(&folder);
        let found = read(&folder, &seen);
        let configured =
            Self { now: Arc::new(RwLock::new((seen, found))), folder: Arc::new(folder) };
        let (now, folder) = (Arc::downgrade(&configured.now), Arc::clone(&configured.folder));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(now) = now.upgrade() else { break };
                refresh(&now, &folder);
            }
        });
        configured
    }

    /// The configuration, or a sentence why there is none. A missing one is looked for again at once.
    pub fn get(&self) -> Found {
        let known = self.now.read().1.clone();
        if known.is_ok() {
            return known;
        }
        refresh(&self.now, &self.folder);
        self.now.read().1.clone()
    }
}

fn refresh(now: &RwLock<(Seen, Found)>, folder: &Path) {
    let seen = look(folder);
    if now.read().0 != seen {
        let found = read(folder, &seen);
        match &found {
            Ok(list) => tracing::info!(name = list.name, "the CNI configuration was read"),
            Err(why) => tracing::warn!(why, "there is no usable CNI configuration"),
        }
        *now.write() = (seen, found);
    }
}

fn look(folder: &Path) -> Seen {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut seen: Seen = entries
        .map(|entry| entry.path())
        .filter(|path| {
            matches!(path.extension().and_then(|e| e.to_str()), Some("conflist" | "conf" | "json"))
        })
        .map(|path| {
            let meta = std::fs::metadata(&path).ok();
            let (time, size) = (
                meta.as_ref().and_then(|m| m.modified().ok()),
                meta.as_ref().map_or(0, std::fs::Metadata::len),
            );
            (path, time, size)
        })
        .collect();
    seen.sort();
    seen
}

fn read(folder: &Path, seen: &Seen) -> Found {
    let mut why = format!("no CNI configuration in {}", folder.display());
    for (path, _, _) in seen {
        match list(folder, path) {
            Ok(list) => return Ok(Arc::new(list)),
            Err(error) => why = format!("{}: {error}", path.display()),
        }
    }
    Err(why)
}

/// One file, with the plugins of the folder that has its network's name (`loadOnlyInlinedPlugins`).
fn list(folder: &Path, path: &Path) -> Result<ConfList, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
    // A name that leads elsewhere is refused below.
    let more = if name.contains('/') || name.is_empty() { Vec::new() } else { more(folder, name)? };
    ConfList::with(&text, &more).map_err(|error| error.to_string())
}

fn more(folder: &Path, name: &str) -> Result<Vec<Value>, String> {
    let entries = std::fs::read_dir(folder.join(name)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .map_err(|why| format!("{}: {why}", path.display()))
    };
    paths.iter().map(read).collect()
}
