//! Every command line, once. What a command does is in a file of its own; here it is only named and
//! described, so that `wherry --help` and this file are the same list.

use crate::cli;
use crate::config::load;
use crate::serve;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A container runtime for Kubernetes nodes, and for people.
#[derive(Debug, Parser)]
#[command(name = "wherry", bin_name = "wherry", version, about, infer_subcommands = false)]
struct Cli {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ServeArgs),
    /// Print every configuration key with its default and its meaning
    Config,
    #[command(flatten)]
    Verb(cli::Verb),
}

/// Flags of the daemon; they win over the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; may be missing unless it is named
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Unix socket to serve on
    #[arg(id = "serve_socket", long = "socket", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Durable data: images, layers, ledger
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Runtime state, on a tmpfs
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Network configurations
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Network plugins; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Vec<PathBuf>,
    /// Registry hosts: DIR/HOST/hosts.toml
    #[arg(long, value_name = "DIR")]
    pub(crate) registry_config: Option<PathBuf>,
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let Cli { global, command } = match Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            return cli::usage::not_understood(&error, Cli::command(), std::env::args_os());
        }
    };
    match command {
        Command::Verb(verb) => cli::main(&global, verb),
        Command::Serve(flags) => serve::main(&flags),
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
