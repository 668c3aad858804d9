//! The daemon's configuration: `keys` is what there is, `load` reads and merges the files, `flags` puts the command line over them, `live` says
//! which keys a running daemon takes over. The only room that reads the environment.

pub(crate) mod containers;
pub(crate) mod environment;
pub(crate) mod flags;
pub(crate) mod handlers;
pub(crate) mod keys;
pub(crate) mod live;
pub(crate) mod load;
pub(crate) mod nri;
pub(crate) mod telemetry;
