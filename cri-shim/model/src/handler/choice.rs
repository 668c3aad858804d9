//! A handler as it is configured and as a pod keeps it: the name of a request to one, or a refusal that tells
//! the names that there are. A pod keeps its handler whole, so that it can be ended after the configuration
//! has changed.

use super::features::Features;
use super::order::Kind;
use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of the runtime itself.
pub const OWN: &str = "wherry";

/// What the configuration says of a handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The program; `None` = Wherry itself, under another name.
    pub path: Option<PathBuf>,
    /// Where the program keeps its state; `None` = below our own.
    pub root: Option<PathBuf>,
    /// Given to the program before each of its commands.
    pub options: Vec<String>,
    /// Annotations of a container that the program is shown; no others are.
    pub annotations: Vec<String>,
    /// What it can do, where the program does not say it right.
    pub features: Option<Features>,
}

/// Another OCI runtime, as the pod that it was chosen for keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// Given to it before each of its commands.
    pub options: Vec<String>,
    /// Annotations that it is shown.
    pub annotations: Vec<String>,
    /// How it is to be treated.
    pub kind: Kind,
    /// What it can do on this node.
    pub features: Features,
}

/// Who a name stands for: `None` = Wherry itself.
pub fn choose<'a>(
    field: &str,
    name: &str,
    known: &'a BTreeMap<String, Configured>,
) -> Result<Option<&'a Configured>, Refused> {
    match known.get(name) {
        _ if matches!(name, "" | OWN) => Ok(None),
        Some(found) => Ok(found.path.is_some().then_some(found)),
        None => {
            let names = ["", OWN].into_iter().chain(known.keys().map(String::as_str));
            let names: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
            let allowed =
                format!("one of {}; others are [handlers] of the configuration", names.join(", "));
            Err(Refused::new(field, name, allowed))
        }
    }
}

/// What can stand between the brackets of `[handlers.NAME]`: the name of a RuntimeClass handler (RFC 1123
/// label, as Kubernetes has it), which is also the name of a folder.
pub fn legal(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name != OWN
}

#[cfg(test)]
mod tests {
    use super::{Configured, choose, legal};
    use std::collections::BTreeMap;

    #[test]
    fn an_unknown_name_is_refused_with_those_that_there_are() {
        let crun = Configured { path: Some("/usr/bin/crun".into()), ..Configured::default() };
        let known = BTreeMap::from([
            ("crun".to_owned(), crun.clone()),
            ("test-handler".to_owned(), Configured::default()),
        ]);
        for own in ["", "wherry", "test-handler"] {
            assert_eq!(choose("runtime_handler", own, &known), Ok(None));
        }
        assert_eq!(choose("runtime_handler", "crun", &known), Ok(Some(&crun)));
        let refused = choose("runtime_handler", "kata", &known).unwrap_err().to_string();
        for word in ["runtime_handler", "\"kata\"", "\"wherry\"", "\"crun\"", "\"test-handler\""] {
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        assert!(["crun", "runc-2", "a"].iter().all(|name| legal(name)));
        assert!(
            !["", "wherry", "Crun", "a/b", "..", "-a", "a-", "a.b"].iter().any(|name| legal(name))
        );
    }
}
