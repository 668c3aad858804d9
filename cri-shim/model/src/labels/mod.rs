//! What the kernel's security modules are told about a container: names of AppArmor profiles, contexts of
//! SELinux. Decided once, when a container is made; its record keeps them, its spec and its plan repeat them.

pub mod apparmor;
pub mod selinux;

use serde::{Deserialize, Serialize};

/// The labels of a container, or of a pod's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The AppArmor profile of its processes; `None` = unconfined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// The SELinux context of its processes; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// That of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}
