//! The table `[containers]`: what every container has without asking for it, which is today the resource
//! limits of its processes.

use serde::Deserialize;
use shim_model::plan::Rlimit;
use shim_model::rlimits;

/// Table `[containers]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Containers {
    pub(crate) default_ulimits: Vec<Ulimit>,
}

/// A resource limit of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Ulimit(pub(crate) Rlimit);

impl TryFrom<String> for Ulimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        rlimits::parse(&text).map(Self)
    }
}

impl Default for Containers {
    fn default() -> Self {
        // Descriptors as systemd gives them to services: programs that close every possible one at their
        // start stay fast. No bound on processes: a user's number counts over all containers.
        let limit = |resource, soft, hard| Ulimit(Rlimit { resource, soft, hard });
        let (nofile, nproc, core) = (7, 6, 4);
        let default_ulimits = vec![
            limit(nofile, 1_024, 524_288),
            limit(nproc, u64::MAX, u64::MAX),
            limit(core, 0, u64::MAX),
        ];
        Self { default_ulimits }
    }
}
