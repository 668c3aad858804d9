//! The tables `[metrics]` and `[traces]`: where what the daemon counts and times can be had, if anywhere.
//! Nothing is opened here.

use super::keys::Count;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Table `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: Listen,
}

/// Where the page of metrics is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    /// Nowhere.
    #[default]
    Off,
    /// At an address of the node.
    Tcp(SocketAddr),
    /// At a socket that root may open.
    Unix(PathBuf),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:").map(PathBuf::from)
            && path.is_absolute()
        {
            return Ok(Self::Unix(path));
        }
        text.parse().map(Self::Tcp).map_err(|_neither| {
            format!("found \"{text}\", allowed is nothing, an address such as 127.0.0.1:9464, or unix:/PATH")
        })
    }
}

/// Table `[traces]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Traces {
    pub(crate) endpoint: Endpoint,
    pub(crate) per_million: Count<1_000_000>,
}

/// Where spans are sent; empty = nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Endpoint(pub(crate) String);

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        if text.is_empty() || host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
            Ok(Self(text))
        } else {
            Err(format!("found \"{text}\", allowed is nothing, or http://HOST:PORT"))
        }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: Endpoint::default(), per_million: Count(1_000_000) }
    }
}
