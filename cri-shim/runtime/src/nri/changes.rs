//! What plugins ask for about containers that are there: new limits, or an end. A container that somebody is
//! at work on is waited for as long as a plugin may take to answer and no longer: whoever holds it may be
//! waiting for this very plugin.

use super::Change;
use crate::error::{RuntimeError, chain};
use crate::runtime::Runtime;
use shim_model::limits;
use std::time::Duration;

impl Runtime {
    /// Changes limits; gives back what failed and was not to.
    pub async fn nri_changes(
        &self,
        changes: Vec<Change>,
        evict: Vec<(String, String)>,
    ) -> Vec<Change> {
        for (id, reason) in evict {
            tracing::info!(id, reason, "a plugin has a container stopped");
            let runtime = self.clone();
            tokio::spawn(async move {
                if let Err(error) = runtime.stop_container(&id, Duration::ZERO).await {
                    tracing::warn!(id, error = chain(&error), "a container cannot be stopped");
                }
            });
        }
        let mut failed = Vec::new();
        for change in changes {
            if let Err(error) = self.nri_change(&change).await {
                let (id, error) = (&change.container, chain(&error));
                tracing::warn!(id, error, "limits that a plugin asks for cannot be set");
                if !change.may_fail {
                    failed.push(change);
                }
            }
        }
        failed
    }

    async fn nri_change(&self, change: &Change) -> Result<(), RuntimeError> {
        let container = self.container(&change.container)?;
        let after = limits::NRI_REQUEST;
        let work = async {
            let _lock = container.lock.lock().await;
            self.update_locked(&container, &change.resources).await
        };
        match tokio::time::timeout(after, work).await {
            Ok(done) => done,
            Err(_) => Err(RuntimeError::Deadline {
                doing: format!("change the limits of container {}", change.container),
                after,
            }),
        }
    }
}
