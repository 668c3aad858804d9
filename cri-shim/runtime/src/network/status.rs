//! Whether the plugins of the configured list can serve a pod: their programs are there, speak the list's
//! version, and answer STATUS (SPEC 1.1.0). Asked in the background, so that the node's condition is told
//! without waiting. Plugins that are done in process need no program and are not asked.

use super::chain::Chains;
use super::conf::Configured;
use super::plugin::{self, Call};
use crate::error::chain;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use shim_model::cni::chain::Step;
use shim_model::cni::conf::ConfList;
use shim_model::limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often we look whether something is to be asked.
const LOOK: Duration = Duration::from_secs(2);
/// "Unknown command" of the specification's errors: a plugin that has no STATUS.
const UNKNOWN_COMMAND: u64 = 4;

/// What was asked last: of which list, when, and the answer.
type Asked = Option<(Arc<ConfList>, Instant, Result<(), String>)>;
/// A program as it was when it told its versions.
type Program = (PathBuf, Option<SystemTime>, u64);

/// The plugins' condition.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    asked: Arc<Mutex<Asked>>,
}

impl Condition {
    /// Asks now and again for as long as this lives.
    pub fn watch(configured: Configured, chains: Chains) -> Self {
        let condition = Self::default();
        let asked = Arc::downgrade(&condition.asked);
        tokio::spawn(async move {
            let mut versions = BTreeMap::new();
            while let Some(state) = asked.upgrade() {
                if let Ok(list) = configured.get()
                    && is_due(&state.lock(), &list)
                {
                    let answer = ask(&chains, &list, &mut versions).await;
                    tell(&mut state.lock(), list, answer);
                }
                drop(state);
                tokio::time::sleep(LOOK).await;
            }
        });
        condition
    }

    /// What the plugins of this list said last. No I/O.
    pub fn of(&self, list: &Arc<ConfList>, chains: &Chains) -> Result<(), String> {
        match &*self.asked.lock() {
            Some((known, _, answer)) if Arc::ptr_eq(known, list) => answer.clone(),
            _ if runs(chains, list).next().is_none() => Ok(()),
            _ => Err("the CNI plugins have not answered yet".to_owned()),
        }
    }
}

fn is_due(asked: &Asked, list: &Arc<ConfList>) -> bool {
    asked.as_ref().is_none_or(|(known, at, answer)| {
        let every = if answer.is_ok() { limits::CNI_STATUS_EVERY } else { LOOK };
        !Arc::ptr_eq(known, list) || at.elapsed() >= every
    })
}

fn tell(asked: &mut Asked, list: Arc<ConfList>, answer: Result<(), String>) {
    let before = asked.as_ref().map(|(_, _, answer)| answer);
    match (before, &answer) {
        (Some(Err(_)), Ok(())) => tracing::info!("the CNI plugins are ready"),
        (None | Some(Ok(())), Err(why)) => tracing::warn!(why, "the CNI plugins are not ready"),
        _ => {}
    }
    *asked = Some((list, Instant::now(), answer));
}

/// Plugins that are run even for a pod that asks for nothing.
fn runs<'a>(chains: &Chains, list: &'a ConfList) -> impl Iterator<Item = (usize, &'a str)> {
    let steps = chains.steps(list, &Map::new()).into_iter().enumerate();
    steps.filter(|(_, step)| *step == Step::Run).map(|(index, _)| (index, list.plugin_type(index)))
}

async fn ask(
    chains: &Chains,
    list: &ConfList,
    versions: &mut BTreeMap<Program, Vec<String>>,
) -> Result<(), String> {
    for (index, typ) in runs(chains, list) {
        let program = plugin::find(&chains.config, typ)?;
        let ipam = list.plugins.get(index).and_then(|plugin| plugin.get("ipam"));
        let ipam = ipam.and_then(|ipam| ipam.get("type")).and_then(Value::as_str);
        if let Some(ipam) = ipam.filter(|ipam| !ipam.is_empty()) {
            plugin::find(&chains.config, ipam)?;
        }
        let meta = std::fs::metadata(&program).ok();
        let changed = meta.as_ref().and_then(|meta| meta.modified().ok());
        let key = (program, changed, meta.map_or(0, |meta| meta.len()));
        if !versions.contains_key(&key) {
            versions.insert(key.clone(), spoken(chains, typ).await);
        }
        let spoken = versions.get(&key).map(Vec::as_slice).unwrap_or_default();
        if !spoken.is_empty() && !spoken.contains(&list.version) {
            let spoken = spoken.join(", ");
            return Err(format!(
                "the network {} is of CNI {}, its plugin {typ} speaks {spoken}",
                list.name, list.version
            ));
        }
        if list.at_least("1.1.0") {
            status(chains, list, index).await?;
        }
    }
    Ok(())
}

/// Versions that a plugin says it speaks; none if it does not say.
async fn spoken(chains: &Chains, typ: &str) -> Vec<String> {
    let call = Call { verb: "VERSION", pod: None, config: &chains.config };
    let said = plugin::run(&call, typ, &json!({"cniVersion": "1.1.0"})).await.unwrap_or_default();
    let said = said.get("supportedVersions").and_then(Value::as_array).cloned();
    said.into_iter().flatten().filter_map(|version| Some(version.as_str()?.to_owned())).collect()
}

async fn status(chains: &Chains, list: &ConfList, index: usize) -> Result<(), String> {
    let typ = list.plugin_type(index);
    let call = Call { verb: "STATUS", pod: None, config: &chains.config };
    match plugin::ask(&call, typ, &list.input_of_all(index, None)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(said)) if said.code == UNKNOWN_COMMAND => Ok(()),
        Ok(Err(said)) => Err(format!("the CNI plugin {typ} is not ready: {}", said.text)),
        Err(error) => Err(chain(&error)),
    }
}
