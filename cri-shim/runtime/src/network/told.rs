//! What a pod's network is made of, for whoever looks: each plugin of its chain and how it was done, and the
//! result as it was kept. Reads one small file; decides nothing.

use super::{Attachment, Network, cache};
use serde_json::Value;
use shim_model::cni::chain::{self, Step};

/// A pod's network.
#[derive(Debug)]
pub struct Told {
    /// The network's name; `None` = our own bridge.
    pub name: Option<String>,
    /// Type of each plugin, and how it was done.
    pub plugins: Vec<(String, Done)>,
    /// The last plugin's result, as it gave it.
    pub result: Option<Value>,
}

/// How a plugin was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Its program was run.
    Run,
    /// What it does was done in process.
    InProcess,
    /// It has nothing to do for this pod.
    LeftOut,
}

impl Done {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::InProcess => "in process",
            Self::LeftOut => "left out",
        }
    }
}

impl Network {
    /// What a pod's network is made of.
    pub fn told(&self, attachment: &Attachment) -> Told {
        let Some(kept) = cache::find(&self.chains.config.cache_dir, &attachment.id, None) else {
            let plugins = vec![("wherry".to_owned(), Done::InProcess)];
            return Told { name: None, plugins, result: None };
        };
        let steps = if kept.in_process {
            chain::steps(&kept.list, &kept.capabilities)
        } else {
            self.chains.steps(&kept.list, &kept.capabilities)
        };
        let plugins = steps.iter().enumerate().map(|(index, step)| {
            let done = match step {
                Step::Link(_) if kept.in_process => Done::InProcess,
                Step::Run | Step::Link(_) => Done::Run,
                Step::Idle => Done::LeftOut,
            };
            (kept.list.plugin_type(index).to_owned(), done)
        });
        let plugins = plugins.collect();
        Told { name: Some(kept.list.name), plugins, result: kept.result }
    }
}
