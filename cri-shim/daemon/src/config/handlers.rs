//! The tables `[handlers.NAME]`: other OCI runtimes that a RuntimeClass may name, and further names of Wherry
//! itself. What a handler is, is the model's; here it is read.

use super::keys::Optional;
use serde::{Deserialize, Deserializer};
use shim_model::handler::choice::{self, Configured};
use shim_model::handler::features::Features;
use std::collections::BTreeMap;

/// One handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Handler {
    path: Optional,
    root: Optional,
    options: Vec<String>,
    annotations: Vec<String>,
    features: Option<Features>,
}

impl From<Handler> for Configured {
    fn from(found: Handler) -> Self {
        Self {
            path: found.path.0,
            root: found.root.0,
            options: found.options,
            annotations: found.annotations,
            features: found.features,
        }
    }
}

/// Every handler by its name.
pub(super) fn all<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, Configured>, D::Error> {
    let found = BTreeMap::<String, Handler>::deserialize(from)?;
    if let Some(name) = found.keys().find(|name| !choice::legal(name)) {
        let text = format!(
            "found the handler \"{}\", allowed are names of 1 to 63 lower case letters, digits and '-', and not \"{}\"",
            name.escape_default(),
            choice::OWN
        );
        return Err(serde::de::Error::custom(text));
    }
    Ok(found.into_iter().map(|(name, handler)| (name, handler.into())).collect())
}
