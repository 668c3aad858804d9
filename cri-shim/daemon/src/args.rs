//! Every command line, once. What a command does is in its own file; here it is only named.

use crate::config::keys::Config;
use crate::config::load;
use crate::serve;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A container runtime for Kubernetes nodes, and for people.
#[derive(Debug, Parser)]
#[command(name = "wherry", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ServeArgs),
    /// Print every configuration key with its default and its meaning
    Config,
}

/// Flags of the daemon; they win over the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; missing is fine unless named
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Unix socket to serve the CRI on
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Durable data: images, layers, ledger
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Runtime state, on tmpfs
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// CNI configurations
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// CNI plugins
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// Registry hosts: DIR/HOST/hosts.toml
    #[arg(long, value_name = "DIR")]
    pub(crate) registry_config: Option<PathBuf>,
}

impl ServeArgs {
    /// Flags win over files.
    fn over(&self, mut config: Config) -> Config {
        let set = |flag: &Option<PathBuf>, key: &mut PathBuf| {
            if let Some(value) = flag {
                value.clone_into(key);
            }
        };
        set(&self.socket, &mut config.socket.path);
        set(&self.root, &mut config.root);
        set(&self.state, &mut config.state);
        set(&self.cni_conf_dir, &mut config.cni.conf_dir);
        set(&self.registry_config, &mut config.registry.config_dir);
        if let Some(dir) = &self.cni_bin_dir {
            config.cni.bin_dirs = vec![dir.clone()];
        }
        // A moved instance keeps its network results to itself, so that several run side by side.
        if self.root.is_some() && config.cni.cache_dir == Config::default().cni.cache_dir {
            config.cni.cache_dir = config.root.join("cni");
        }
        config
    }
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(flags) => {
            match load::load(flags.config.as_deref()).map(|config| flags.over(config)) {
                Ok(config) => serve::main(config),
                Err(error) => fail(&error.into()),
            }
        }
        Command::Config => {
            print_out(load::DEFAULTS);
            ExitCode::SUCCESS
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's own output")]
fn print_out(text: &str) {
    print!("{text}");
}

/// Says what went wrong, with every cause.
#[expect(clippy::print_stderr, reason = "the last word of a process that cannot start")]
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("wherry: {error:#}");
    ExitCode::FAILURE
}
