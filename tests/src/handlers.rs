//! Other OCI runtimes for the suites: where their programs are, and under which handler pods are run. Every
//! daemon of a test is told of those that are there. With `WHERRY_HANDLER=crun` in the environment the pods of
//! every test are run by crun, which is how its life is compared with our own.

use crate::{say, setting};
use std::path::{Path, PathBuf};

/// Names of handlers that are looked for.
pub const NAMES: [&str; 2] = ["crun", "runc"];

/// The program of a handler, from the system or from what `hack/bench` built.
pub fn program(name: &str) -> Option<PathBuf> {
    let home = setting("HOME").unwrap_or_default();
    let folders = ["/usr/bin".to_owned(), "/usr/sbin".to_owned(), "/usr/local/bin".to_owned()];
    let peers = [format!("{home}/.cache/wherry/peers/{name}")];
    let all = peers.iter().chain(&folders).map(|folder| Path::new(folder).join(name));
    all.into_iter().find(|path| path.is_file())
}

/// Handlers whose programs are there.
pub fn there() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(|name| program(name).is_some())
}

/// The same, for a test of each: of one that is not there, that is said.
pub fn each() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(|name| {
        let there = program(name).is_some();
        if !there {
            say(&format!("skipped for {name}: there is no such program"));
        }
        there
    })
}

/// The handler of pods that name none.
pub fn asked() -> String {
    setting("WHERRY_HANDLER").unwrap_or_default()
}

/// The tables of a daemon's configuration.
pub fn tables() -> String {
    let table = |name: &&str| {
        let path = program(name)?;
        Some(format!("[handlers.{name}]\npath = \"{}\"\n", path.display()))
    };
    NAMES.iter().filter_map(table).collect()
}
