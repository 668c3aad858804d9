//! Log lines to standard error, for people or for programs. Owns the process's one subscriber and the
//! handle that changes its level; what is told where is the business of whoever tells it.

use crate::config::keys::{Format, Level, Log};
use crate::error::DaemonError;
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes what is told while the daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Volume(reload::Handle<EnvFilter, Registry>);

/// Starts logging; once per process.
pub(crate) fn start(config: &Log) -> Result<Volume, DaemonError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&config.level.0));
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    let started = match config.format {
        Format::Text => registry
            .with(fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr))
            .try_init(),
        Format::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    started.map_err(DaemonError::Logs)?;
    Ok(Volume(handle))
}

impl Volume {
    /// Tells by another rule from now on.
    pub(crate) fn set(&self, level: &Level) {
        if let Err(error) = self.0.reload(EnvFilter::new(&level.0)) {
            tracing::warn!(%error, "the level of the log stays as it was");
        }
    }
}
