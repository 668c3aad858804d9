//! Log lines to standard error, for people or for programs. Owns the process's one subscriber and the
//! handle that changes its level; what is told where is the business of whoever tells it.

use super::traces::Pipe;
use crate::config::keys::{Format, Level, Log};
use crate::error::DaemonError;
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Changes what is told while the daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Volume(reload::Handle<EnvFilter, Registry>);

/// Starts logging, and traces into this pipe; once per process. The level is the log's alone.
pub(crate) fn start(config: &Log, pipe: &Pipe) -> Result<Volume, DaemonError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&config.level.0));
    let colours = std::io::stderr().is_terminal();
    let lines = match config.format {
        Format::Text => fmt::layer()
            .with_ansi(colours)
            .with_target(false)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
        Format::Json => {
            fmt::layer().json().with_writer(std::io::stderr).with_filter(filter).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(lines).with(pipe.layer()).try_init();
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
