//! Pulls for pods: how long a kubelet's pull for a pod took, remembered until a container of that image is
//! made in the pod. Bounded, and in memory only: it explains a start, nothing depends on it.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::timing::Timing;
use parking_lot::Mutex;
use shim_image::auth::Auth;
use shim_image::index::Image;
use shim_image::progress::Progress;
use shim_model::digest::ImageId;
use shim_model::limits;
use shim_model::phases::{Phase, Step};
use shim_model::sandbox::config::Metadata;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// The last pulls, oldest first.
#[derive(Debug, Default)]
pub struct Pulled(Mutex<VecDeque<(Metadata, ImageId, Step)>>);

impl Pulled {
    fn remember(&self, pod: Metadata, image: ImageId, step: Step) {
        let mut all = self.0.lock();
        all.retain(|(of, what, _)| (of, what) != (&pod, &image));
        if all.len() >= limits::PULLS_REMEMBERED {
            all.pop_front();
        }
        all.push_back((pod, image, step));
    }

    /// The pull of an image for a pod, once.
    pub(crate) fn take(&self, pod: &Metadata, image: &ImageId) -> Option<Step> {
        let mut all = self.0.lock();
        let index = all.iter().position(|(of, what, _)| (of, what) == (pod, image))?;
        all.remove(index).map(|(_, _, step)| step)
    }
}

impl Runtime {
    /// Pulls an image, for a pod if one is named. Ends with its caller, unless somebody else waits for the
    /// same.
    pub async fn pull_image(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<UnboundedSender<Progress>>,
        pod: Option<Metadata>,
    ) -> Result<Arc<Image>, RuntimeError> {
        let timing = Timing::begin();
        let pulled = self.0.images.pull(name, auth, heard).await;
        let counts = &self.0.counts;
        let image = match pulled {
            Ok(image) => image,
            Err(error) => {
                counts.pulls_failed.more(1);
                return Err(RuntimeError::Pull(error));
            }
        };
        counts.pulls.more(1);
        timing.since_begin(Phase::Pull);
        if let (Some(pod), Some(step)) = (pod, timing.steps().pop()) {
            self.0.pulled.remember(pod, image.id.clone(), step);
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::Pulled;
    use shim_model::digest::ImageId;
    use shim_model::limits;
    use shim_model::phases::{Phase, Step};
    use shim_model::sandbox::config::Metadata;

    #[test]
    fn a_pull_is_told_once_and_old_ones_are_forgotten() {
        let pulled = Pulled::default();
        let image = ImageId::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        let pod = |attempt: usize| Metadata {
            attempt: u32::try_from(attempt).unwrap(),
            ..Metadata::default()
        };
        let step = |took| Step { phase: Phase::Pull, begin: 1, took };
        pulled.remember(pod(0), image.clone(), step(1));
        pulled.remember(pod(0), image.clone(), step(2));
        assert_eq!(pulled.take(&pod(0), &image), Some(step(2)));
        assert_eq!(pulled.take(&pod(0), &image), None);
        for attempt in 0..=limits::PULLS_REMEMBERED {
            pulled.remember(pod(attempt), image.clone(), step(3));
        }
        assert_eq!(pulled.take(&pod(0), &image), None);
        assert_eq!(pulled.take(&pod(1), &image), Some(step(3)));
    }
}
