//! What a handler can do, out of what its program says: the document of `PROGRAM features` (OCI runtime spec,
//! features.md; runc 1.1, crun 1.9), and the first line of `PROGRAM --version`. What is not said is not
//! promised.

use super::order::Kind;
use serde::{Deserialize, Serialize};

/// What kubelets ask of a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Features {
    /// Mounts can be read-only with everything below them.
    pub recursive_read_only_mounts: bool,
    /// Pods can have a user namespace of their own.
    pub user_namespaces: bool,
}

impl Features {
    /// Both say so.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            recursive_read_only_mounts: self.recursive_read_only_mounts
                && other.recursive_read_only_mounts,
            user_namespaces: self.user_namespaces && other.user_namespaces,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    mount_options: Vec<String>,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<String>,
}

/// The features in a program's document; `None` if it is none.
pub fn said(document: &[u8]) -> Option<Features> {
    let found: Document = serde_json::from_slice(document).ok()?;
    Some(Features {
        recursive_read_only_mounts: found.mount_options.iter().any(|option| option == "rro"),
        user_namespaces: found.linux.namespaces.iter().any(|kind| kind == "user"),
    })
}

/// Which program it is, by the first word that it says of its version.
pub fn kind(version: &str) -> Kind {
    match version.split_whitespace().next() {
        Some("crun") => Kind::Crun,
        Some("runc") => Kind::Runc,
        Some(_) | None => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Features, Kind, kind, said};

    #[test]
    fn features_are_what_the_program_says() {
        let text = br#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],
            "linux":{"namespaces":["mount","user"],"seccomp":{"enabled":true}}}"#;
        let all = Features { recursive_read_only_mounts: true, user_namespaces: true };
        assert_eq!(said(text), Some(all));
        assert_eq!(said(br#"{"ociVersionMin":"1.0.0"}"#), Some(Features::default()));
        assert_eq!(said(b"unknown command features"), None);
    }

    #[test]
    fn a_program_is_known_by_its_first_word() {
        assert_eq!(kind("crun version 1.8.1\ncommit: x"), Kind::Crun);
        assert_eq!(kind("runc version 1.5.2"), Kind::Runc);
        assert_eq!([kind("runsc version release-1"), kind("")], [Kind::Other; 2]);
    }
}
