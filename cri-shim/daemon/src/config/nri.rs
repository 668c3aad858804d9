//! Table `[nri]`: whether and where plugins of the Node Resource Interface connect, and how long they may take.

use super::keys::{Span, absolute};
use crate::nri::plugin::Patience;
use crate::nri::server::Settings;
use serde::Deserialize;
use shim_model::limits;
use std::path::PathBuf;

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Nri {
    pub(crate) enable: bool,
    #[serde(deserialize_with = "absolute")]
    pub(crate) socket_path: PathBuf,
    pub(crate) registration_timeout: Span,
    pub(crate) request_timeout: Span,
}

impl Nri {
    /// What the server needs, if there is to be one.
    pub(crate) fn settings(&self) -> Option<Settings> {
        let patience =
            Patience { registration: self.registration_timeout.0, request: self.request_timeout.0 };
        self.enable.then(|| Settings { socket: self.socket_path.clone(), patience })
    }
}

impl Default for Nri {
    fn default() -> Self {
        Self {
            enable: true,
            socket_path: PathBuf::from("/var/run/nri/nri.sock"),
            registration_timeout: Span(limits::NRI_REGISTRATION),
            request_timeout: Span(limits::NRI_REQUEST),
        }
    }
}
