//! Pulls: how long each step of the last ones took. That of a kubelet's pull for a pod is remembered until a
//! container of that image is made in the pod. Bounded, and in memory only: it explains a start, nothing
//! depends on it.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::timing::Timing;
use parking_lot::Mutex;
use shim_image::auth::Auth;
use shim_image::images::Arrived;
use shim_image::progress::Progress;
use shim_model::digest::ImageId;
use shim_model::limits;
use shim_model::phases::{Phase, Phases, Step};
use shim_model::sandbox::config::Metadata;
use std::collections::VecDeque;
use tokio::sync::mpsc::UnboundedSender;

/// The last pulls, oldest first.
#[derive(Debug, Default)]
pub struct Pulled(Mutex<VecDeque<Pull>>);

#[derive(Debug)]
struct Pull {
    /// Whom it was for, until a container of it was made there.
    pod: Option<Metadata>,
    image: ImageId,
    steps: Phases,
}

impl Pulled {
    fn remember(&self, pull: Pull) {
        let mut all = self.0.lock();
        all.retain(|known| (&known.pod, &known.image) != (&pull.pod, &pull.image));
        if all.len() >= limits::PULLS_REMEMBERED {
            all.pop_front();
        }
        all.push_back(pull);
    }

    /// The pull of an image for a pod, once.
    pub(crate) fn take(&self, pod: &Metadata, image: &ImageId) -> Vec<Step> {
        let mut all = self.0.lock();
        let found =
            all.iter_mut().find(|known| known.pod.as_ref() == Some(pod) && known.image == *image);
        let Some(found) = found else { return Vec::new() };
        found.pod = None;
        found.steps.0.clone()
    }

    /// The last pull of an image, if it was not long ago.
    fn last(&self, image: &ImageId) -> Option<Phases> {
        let all = self.0.lock();
        all.iter().rev().find(|known| known.image == *image).map(|known| known.steps.clone())
    }
}

impl Runtime {
    /// Pulls an image, for a pod if one is named. Ends with its caller, unless somebody else waits for the
    /// same. Whoever joins a pull gets the whole time it waited, and of the steps those since then.
    pub async fn pull_image(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<UnboundedSender<Progress>>,
        pod: Option<Metadata>,
    ) -> Result<Arrived, RuntimeError> {
        let timing = Timing::begin();
        let pulled = self.0.images.pull(name, auth, heard).await;
        let counts = &self.0.counts;
        let Arrived { image, steps } = match pulled {
            Ok(arrived) => arrived,
            Err(error) => {
                counts.pulls_failed.more(1);
                return Err(RuntimeError::Pull(error));
            }
        };
        counts.pulls.more(1);
        timing.since_begin(Phase::Pull);
        let steps = timing.with_own(steps);
        let pull = Pull { pod, image: image.id.clone(), steps: steps.clone() };
        self.0.pulled.remember(pull);
        Ok(Arrived { image, steps: steps.0 })
    }

    /// How long the steps of the last pull of an image took, if it was not long ago.
    pub fn pull_steps(&self, image: &ImageId) -> Option<Phases> {
        self.0.pulled.last(image)
    }
}

#[cfg(test)]
mod tests {
    use super::{Pull, Pulled};
    use shim_model::digest::ImageId;
    use shim_model::limits;
    use shim_model::phases::{Phase, Phases, Step};
    use shim_model::sandbox::config::Metadata;

    #[test]
    fn a_pull_is_told_once_to_its_pod_and_old_ones_are_forgotten() {
        let pulled = Pulled::default();
        let image = ImageId::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        let pod = |attempt: usize| Metadata {
            attempt: u32::try_from(attempt).unwrap(),
            ..Metadata::default()
        };
        let step = |took| Step { phase: Phase::Pull, begin: 1, took };
        let remember = |of: Option<usize>, took| {
            let steps = Phases(vec![step(took)]);
            pulled.remember(Pull { pod: of.map(pod), image: image.clone(), steps });
        };
        remember(Some(0), 1);
        remember(Some(0), 2);
        assert_eq!(pulled.take(&pod(0), &image), [step(2)]);
        assert_eq!(pulled.take(&pod(0), &image), []);
        assert_eq!(pulled.last(&image), Some(Phases(vec![step(2)])));
        for attempt in 1..=limits::PULLS_REMEMBERED {
            remember(Some(attempt), 3);
        }
        remember(None, 4);
        assert_eq!(pulled.take(&pod(1), &image), []);
        assert_eq!(pulled.take(&pod(2), &image), [step(3)]);
        assert_eq!(pulled.last(&image), Some(Phases(vec![step(4)])));
        assert_eq!(pulled.0.lock().len(), limits::PULLS_REMEMBERED);
    }
}
