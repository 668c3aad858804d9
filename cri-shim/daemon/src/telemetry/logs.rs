//! Structured logs to standard error, for people or for programs.

use crate::config::keys::{Format, Log};
use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging; once per process.
pub(crate) fn start(config: &Log) -> Result<()> {
    let filter = EnvFilter::builder().parse(&config.level.0).with_context(|| {
        format!("log.level: found \"{}\", allowed is a level or a filter", config.level.0)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
