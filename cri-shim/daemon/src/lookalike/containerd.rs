//! `containerd`: without a sub-command it is the daemon, on containerd's socket unless it is told another;
//! `config dump` is Wherry's configuration in the words of containerd's (version 2 of its file, which every
//! release of kind reads), as far as both have them.

use super::{SOCKET, VERSION, ended, parse};
use crate::args::{ServeArgs, fail};
use crate::cli::print;
use crate::config::flags;
use crate::config::keys::Config;
use crate::serve;
use clap::{ArgAction, Parser, Subcommand};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const KNOWN: &str = "containerd with --version, with \"config dump\", and without a command as the daemon, with --address, --config, --root and --state";

#[derive(Debug, Parser)]
#[command(name = "containerd", version = VERSION, disable_version_flag = true)]
struct Containerd {
    /// Print the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Configuration file, of Wherry's
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket to serve on
    #[arg(short, long, value_name = "PATH", default_value = SOCKET)]
    address: PathBuf,
    /// Durable data
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Runtime state
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The configuration
    Config {
        #[command(subcommand)]
        what: What,
    },
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the configuration in use
    Dump,
}

pub(super) fn run(words: Vec<OsString>) -> ExitCode {
    let called: Containerd = match parse(words, KNOWN) {
        Ok(called) => called,
        Err(told) => return told,
    };
    let serving = ServeArgs {
        config: called.config,
        socket: Some(called.address),
        root: called.root,
        state: called.state,
        ..ServeArgs::default()
    };
    match called.command {
        None => serve::main(&serving),
        Some(Command::Config { what: What::Dump }) => match flags::configuration(&serving) {
            Ok(config) => ended(print(dumped(&config).to_string().trim_end()).map(|()| 0)),
            Err(error) => fail(&error.into()),
        },
    }
}

/// What both have.
fn dumped(config: &Config) -> toml::Table {
    let whole = json!({
        "version": 2,
        "root": config.root,
        "state": config.state,
        "grpc": {"address": config.socket.path},
        "plugins": {"io.containerd.grpc.v1.cri": {
            "cdi_spec_dirs": config.cdi.spec_dirs,
            "containerd": {"snapshotter": "overlayfs", "default_runtime_name": "wherry"},
            "cni": {"conf_dir": config.cni.conf_dir, "bin_dirs": config.cni.bin_dirs},
            "registry": {"config_path": config.registry.config_dir},
        }},
    });
    // It holds no null, the one thing that TOML lacks.
    toml::Table::try_from(whole).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::dumped;
    use crate::config::keys::Config;

    #[test]
    fn a_dump_has_what_kind_looks_for() {
        let table: toml::Table = dumped(&Config::default()).to_string().parse().unwrap();
        assert_eq!(table["version"].as_integer(), Some(2));
        let cri = &table["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["containerd"]["snapshotter"].as_str(), Some("overlayfs"));
        assert_eq!(cri["cni"]["conf_dir"].as_str(), Some("/etc/cni/net.d"));
    }
}
