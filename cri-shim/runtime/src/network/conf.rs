//! Which CNI configuration counts: the first readable one in lexical order, read again when the folder
//! changes. A poll of a few names every two seconds: no descriptor to lose, and folders that appear
//! later or are replaced whole are seen too.

use parking_lot::RwLock;
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
        let parsed = std::fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| ConfList::parse(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(list) => return Ok(Arc::new(list)),
            Err(error) => why = format!("{}: {error}", path.display()),
        }
    }
    Err(why)
}
