//! ADD, CHECK and DEL of a pod in a CNI network: each plugin of the list in process, run, or left out, as
//! `shim-model` decides; DEL with what ADD was given. The watched configuration and the order of verbs are
//! its callers' business.

use super::cache::Kept;
use super::native::Hands;
use super::native::link::Job;
use super::netns::Inside;
use super::{Attachment, NetworkConfig, plugin};
use crate::error::RuntimeError;
use crate::runtime::blocking;
use crate::timing::Timing;
use serde_json::{Map, Value};
use shim_model::cni::chain::{self, Link, Step};
use shim_model::cni::conf::ConfList;
use shim_model::cni::result;
use shim_model::phases::Phase;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// The hands that chains are done with.
#[derive(Clone, Debug)]
pub struct Chains {
    pub(super) config: Arc<NetworkConfig>,
    pub(super) hands: Arc<Hands>,
}

impl Chains {
    /// What to do for each plugin of a list.
    pub fn steps(&self, list: &ConfList, given: &Map<String, Value>) -> Vec<Step> {
        if self.config.native {
            return chain::steps(list, given);
        }
        list.plugins.iter().map(|_| Step::Run).collect()
    }

    /// ADD; the pod's addresses. `inside` are hands in its namespace, if they are at hand still.
    pub(crate) async fn add(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        (given, inside): (Map<String, Value>, Option<Inside>),
        timing: &Timing,
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        let (mut link, mut runs) = (None, Vec::new());
        for (index, step) in self.steps(list, &given).into_iter().enumerate() {
            match step {
                Step::Link(first) => link = Some(first),
                Step::Run => runs.push(index),
                Step::Idle => {}
            }
        }
        let kept = Kept {
            list: list.clone(),
            id: attachment.id.to_string(),
            netns: self.config.netns_dir.join(attachment.id.as_str()),
            args: attachment.args(),
            capabilities: given,
            result: None,
            in_process: link.is_some(),
        };
        let chains = self.clone();
        let watch = timing.clone();
        let mut kept =
            blocking(move || chains.begin(kept, link.as_deref(), (inside, &watch))).await?;
        if !runs.is_empty() {
            for index in runs {
                let plugin = Phase::Plugin(list.plugin_type(index).to_owned());
                kept.result = Some(timing.during(plugin, self.run("ADD", &kept, index)).await?);
            }
            let chains = self.clone();
            kept = blocking(move || kept.put(&chains.config.cache_dir).map(|()| kept)).await?;
        }
        let ips = kept.result.as_ref().map(result::addresses).unwrap_or_default();
        if ips.is_empty() {
            return Err(RuntimeError::Network {
                doing: format!("attach sandbox {}", attachment.id.short()),
                why: format!("the network {} gave it no address", list.name),
            });
        }
        Ok(ips)
    }

    /// Writes down what is about to be, and makes the link if that is ours to do.
    fn begin(
        &self,
        mut kept: Kept,
        link: Option<&Link>,
        (inside, timing): (Option<Inside>, &Timing),
    ) -> Result<Kept, RuntimeError> {
        let begun = Timing::now();
        kept.put(&self.config.cache_dir)?;
        if let Some(link) = link {
            let mut inside = match inside {
                Some(inside) => inside,
                None => Inside::enter(&kept.netns)?,
            };
            let made =
                with_job(&self.config, link, &kept, |job| job.add(&self.hands, &mut inside))?;
            kept.result = Some(made);
            // The first of a chain makes the link.
            timing.since(begun, Phase::Plugin(kept.list.plugin_type(0).to_owned()));
            kept.put(&self.config.cache_dir)?;
        }
        Ok(kept)
    }

    /// DEL of everything in reverse, with what ADD was given. Safe to repeat, and without a namespace.
    pub async fn del(&self, kept: Kept) -> Result<(), RuntimeError> {
        let kept = Arc::new(kept);
        for (index, step) in self.undo(&kept).into_iter().enumerate().rev() {
            match step {
                Step::Idle => {}
                Step::Run => drop(self.run("DEL", &kept, index).await?),
                Step::Link(link) => {
                    let (config, kept) = (Arc::clone(&self.config), Arc::clone(&kept));
                    blocking(move || {
                        let known = kept.result.as_ref();
                        with_job(&config, &link, &kept, |job| job.del(known, kept.in_process))
                    })
                    .await?;
                }
            }
        }
        kept.remove(&self.config.cache_dir)
    }

    /// What undoes an attachment. What plugins did, plugins undo: they may have rules for each pod. A
    /// program that is gone is done without where that can be.
    fn undo(&self, kept: &Kept) -> Vec<Step> {
        let mut steps = chain::steps(&kept.list, &kept.capabilities);
        if !kept.in_process {
            for (index, step) in steps.iter_mut().enumerate() {
                if plugin::find(&self.config, kept.list.plugin_type(index)).is_ok() {
                    *step = Step::Run;
                }
            }
        }
        steps
    }

    /// CHECK in order, until one fails. Nothing where the list forbids it or is too old for it.
    pub async fn check(&self, kept: Kept) -> Result<(), RuntimeError> {
        if kept.list.disable_check || !kept.list.at_least("0.4.0") || kept.result.is_none() {
            return Ok(());
        }
        let kept = Arc::new(kept);
        for (index, step) in self.undo(&kept).into_iter().enumerate() {
            match step {
                Step::Idle => {}
                Step::Run => drop(self.run("CHECK", &kept, index).await?),
                Step::Link(link) => {
                    let (config, kept) = (Arc::clone(&self.config), Arc::clone(&kept));
                    blocking(move || {
                        let known = kept.result.clone().unwrap_or_default();
                        with_job(&config, &link, &kept, |job| job.check(&known))
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    /// GC in process: frees leases that none of these pods has. Only below our own folder: one that a list
    /// names may be shared with a runtime that we know nothing of.
    pub fn collect(
        &self,
        list: &ConfList,
        stays: impl Fn(&str) -> bool,
    ) -> Result<(), RuntimeError> {
        let Some(Step::Link(link)) = self.steps(list, &Map::new()).into_iter().next() else {
            return Ok(());
        };
        if link.ipam.data_dir.is_some() {
            return Ok(());
        }
        let data_dir = self.config.cache_dir.join("networks");
        let job = Job {
            link: &link,
            network: &list.name,
            version: &list.version,
            id: "",
            netns: Path::new(""),
            data_dir: &data_dir,
        };
        let freed = job.collect(stays)?;
        if freed > 0 {
            tracing::info!(network = list.name, freed, "addresses that no pod has were freed");
        }
        Ok(())
    }

    async fn run(
        &self,
        verb: &'static str,
        kept: &Kept,
        index: usize,
    ) -> Result<Value, RuntimeError> {
        let netns = (verb != "DEL" || kept.netns.exists()).then_some(kept.netns.as_path());
        let pod = plugin::Pod { id: &kept.id, netns, args: &kept.args };
        let call = plugin::Call { verb, pod: Some(pod), config: &self.config };
        // Before 0.4.0 only ADD was told the result so far.
        let is_told = verb == "ADD" || kept.list.at_least("0.4.0");
        let previous = kept.result.as_ref().filter(|_| is_told);
        let input = kept.list.input(index, &kept.capabilities, previous);
        plugin::run(&call, kept.list.plugin_type(index), &input).await
    }
}

fn with_job<T>(
    config: &NetworkConfig,
    link: &Link,
    kept: &Kept,
    work: impl FnOnce(&Job<'_>) -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    work(&Job {
        link,
        network: &kept.list.name,
        version: &kept.list.version,
        id: &kept.id,
        netns: &kept.netns,
        data_dir: &config.cache_dir.join("networks"),
    })
}
