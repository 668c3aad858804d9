//! What plugins of the Node Resource Interface make of a container that is being made: only what this
//! runtime can honour. Plain data; what a plugin said, who may say it and what is refused is decided where
//! its messages are understood, what becomes of it in `edits.rs` and `spec/`.

use crate::container::config::ContainerConfig;
use crate::edits::Edits;
use crate::resources::Resources;

/// What all plugins together change about a container that is being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adjustment {
    /// Variables, mounts, devices, hooks, arguments, annotations, limits of processes.
    pub edits: Edits,
    /// Names of CDI devices that it gets besides those of its request.
    pub cdi: Vec<String>,
    /// Limits of its cgroup that replace the request's.
    pub resources: Resources,
    /// Its out-of-memory score, if it is another one.
    pub oom_score_adj: Option<i64>,
}

impl Adjustment {
    /// The request with what changes its limits and its devices.
    pub fn apply(&self, config: &mut ContainerConfig) {
        config.resources = config.resources.changed(&self.resources);
        if let Some(score) = self.oom_score_adj {
            config.resources.oom_score_adj = score;
        }
        config.cdi_devices.extend(self.cdi.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::Adjustment;
    use crate::container::config::ContainerConfig;
    use crate::resources::Resources;

    #[test]
    fn what_a_plugin_does_not_name_stays_as_it_was_asked_for() {
        let mut config = ContainerConfig {
            resources: Resources { cpu_shares: 5, oom_score_adj: 7, ..Resources::default() },
            cdi_devices: vec!["v.com/c=a".to_owned()],
            ..ContainerConfig::default()
        };
        let first = config.clone();
        Adjustment::default().apply(&mut config);
        assert_eq!(config, first);
        let adjustment = Adjustment {
            cdi: vec!["v.com/c=b".to_owned()],
            resources: Resources { cpuset_cpus: "1".to_owned(), ..Resources::default() },
            oom_score_adj: Some(0),
            ..Adjustment::default()
        };
        adjustment.apply(&mut config);
        let now = &config.resources;
        assert_eq!((now.cpu_shares, now.oom_score_adj, now.cpuset_cpus.as_str()), (5, 0, "1"));
        assert_eq!(config.cdi_devices, ["v.com/c=a", "v.com/c=b"]);
    }
}
