//! The handlers of this node: those of the configuration whose programs answer. Each is asked once, at the
//! daemon's start; one that did not answer is asked again by every pod that names it.

use super::program;
use crate::error::{RuntimeError, chain};
use crate::store::disk;
use parking_lot::Mutex;
use shim_model::handler::choice::{self, Configured, Handler, OWN};
use shim_model::handler::features::{self, Features};
use shim_model::handler::order::{Program, habits};
use shim_model::host::{CgroupLayout, Host};
use shim_model::limits;
use shim_model::mountinfo;
use shim_model::spec::foreign::Bounds;
use shim_sys::{credentials, mount};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};

/// All of them.
#[derive(Debug)]
pub struct Handlers {
    configured: BTreeMap<String, Configured>,
    /// Where their programs keep their state if nobody says otherwise.
    folder: PathBuf,
    /// What Wherry can do itself.
    own: Features,
    answered: Mutex<BTreeMap<String, Handler>>,
}

/// The capability to raise limits (capabilities(7)).
const SYS_RESOURCE: u32 = 24;

impl Handlers {
    /// Asks the programs of a configuration.
    pub async fn ask(configured: BTreeMap<String, Configured>, state: &Path, host: &Host) -> Self {
        let own = Features {
            recursive_read_only_mounts: host.recursive_readonly,
            user_namespaces: host.no_user_namespaces.is_none(),
        };
        let answered = Mutex::default();
        let handlers = Self { configured, folder: state.join("handlers"), own, answered };
        let programs = handlers.configured.iter().filter(|(_, found)| found.path.is_some());
        let asked = programs.map(async |(name, found)| {
            if let Err(error) = handlers.ask_one(name, found).await {
                tracing::warn!(
                    name,
                    error = chain(&error),
                    "a handler does not answer; pods that name it are refused"
                );
            }
        });
        futures_util::future::join_all(asked).await;
        handlers
    }

    /// Every name that a request may have, with what it stands for can do; the default by both its names.
    pub fn listed(&self) -> Vec<(String, Features)> {
        let own = ["", OWN].map(|name| (name.to_owned(), self.own));
        let alias = self.configured.iter().filter(|(_, found)| found.path.is_none());
        let alias = alias.map(|(name, _)| (name.clone(), self.own));
        let answered = self.answered.lock();
        let others = answered.iter().map(|(name, known)| (name.clone(), known.features));
        own.into_iter().chain(alias).chain(others).collect()
    }

    /// Refuses a name that is not configured.
    pub fn check(&self, field: &str, name: &str) -> Result<(), RuntimeError> {
        Ok(choice::choose(field, name, &self.configured).map(drop)?)
    }

    /// Who runs the containers of a pod; `None` = Wherry.
    pub async fn of_pod(&self, name: &str) -> Result<Option<Handler>, RuntimeError> {
        let Some(found) = choice::choose("runtime_handler", name, &self.configured)? else {
            return Ok(None);
        };
        let known = self.answered.lock().get(name).cloned();
        match known {
            Some(known) => Ok(Some(known)),
            None => self.ask_one(name, found).await.map(Some),
        }
    }

    async fn ask_one(&self, name: &str, found: &Configured) -> Result<Handler, RuntimeError> {
        let path = found.path.clone().unwrap_or_default();
        let arguments = |word: &str| -> Vec<OsString> {
            found.options.iter().map(String::as_str).chain([word]).map(OsString::from).collect()
        };
        let asked = [arguments("--version"), arguments("features")];
        let [version, features] =
            asked.each_ref().map(|words| program::run(&path, words, limits::HANDLER_PROBE));
        let (version, features) = tokio::join!(version, features);
        let version = version?;
        let kind = features::kind(&String::from_utf8_lossy(&version.stdout));
        let said = features.ok().filter(|output| output.success);
        let said = said.and_then(|output| features::said(&output.stdout)).unwrap_or_default();
        // What the program can do is done on this node only if the node can.
        let features = found.features.unwrap_or(said).and(self.own);
        // The bundle lies in a folder that nobody but the node's root may enter.
        let features = Features { user_namespaces: false, ..features };
        let root = found.root.clone().unwrap_or_else(|| self.folder.join(name));
        disk::make(&root)?;
        let handler = Handler {
            name: name.to_owned(),
            path,
            root,
            options: found.options.clone(),
            annotations: found.annotations.clone(),
            kind,
            features,
        };
        tracing::info!(name, ?kind, ?features, "a handler answers");
        self.answered.lock().insert(name.to_owned(), handler.clone());
        Ok(handler)
    }
}

/// The program as a monitor runs it, for a container with this bundle.
pub fn program(
    handler: &Handler,
    layout: CgroupLayout,
    bundle: &Path,
) -> Result<Program, RuntimeError> {
    let habits = habits(handler.kind, layout);
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let mut options: Vec<CString> = handler.options.iter().map(|option| text(option)).collect();
    options.extend([text("--root"), text(&handler.root.to_string_lossy())]);
    options.extend(habits.options.iter().map(|option| text(option)));
    Ok(Program {
        path: text(&handler.path.to_string_lossy()),
        options,
        place: habits.place,
        hide_v2: habits.hide_v2,
        sub_group: habits.sub_group.map(|prefix| text(&prefix)),
        mount: text(&mount_of(bundle)?),
    })
}

/// Where the mount is that holds a folder.
fn mount_of(folder: &Path) -> Result<String, RuntimeError> {
    let doing = || format!("find the mount of {}", folder.display());
    let id = mount::id_of(folder).map_err(RuntimeError::system(doing()))?;
    let path = "/proc/self/mountinfo";
    let table = std::fs::read_to_string(path).map_err(RuntimeError::file("read", path))?;
    mountinfo::place(&table, id).ok_or_else(|| RuntimeError::Unsupported(doing()))
}

/// What a program can give away at most; `None` = it may raise limits.
pub fn bounds(host: &Host) -> Option<Bounds> {
    if host.bounding >> SYS_RESOURCE & 1 == 1 {
        return None;
    }
    let own = |resource: u32| credentials::limit(resource).ok().map(|limit| (resource, limit.hard));
    let hard = host.rlimits.iter().filter_map(|limit| own(limit.resource)).collect();
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    Some(Bounds { hard, oom_score: score.trim().parse().unwrap_or_default() })
}
