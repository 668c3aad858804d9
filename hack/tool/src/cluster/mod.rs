//! `hack/cluster`: a Kubernetes cluster of unmodified components on this machine. Every node has mount,
//! network, UTS, PID and cgroup namespaces of its own, a layer of its own above the machine's files, and a
//! wire to a common bridge; nothing of it is the machine's, and `down` leaves nothing. What is built, and
//! where the programs are, is `hack/cluster`'s business.

pub mod components;
pub mod groups;
pub mod images;
pub mod keep;
pub mod layout;
pub mod machine;
pub mod pki;
pub mod space;
pub mod up;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use layout::{Home, Machine, Network, Proxy, Runtime, log_file, pid_file};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Where programs of a machine are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Kubernetes cluster of unmodified components on this machine.
#[derive(Debug, Parser)]
#[command(name = "hack/cluster", disable_help_subcommand = true)]
pub struct Cluster {
    /// Where everything of the cluster is.
    #[arg(long, env = "WHERRY_CLUSTER", default_value = "/tmp/wherry-cluster")]
    home: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts a cluster and waits until its nodes are ready.
    Up(Up),
    /// kubectl of the cluster.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// A command in the cluster's network, from which nodes, pods and Services are reached.
    Run {
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// A command on a machine: control, node-1, ...
    Enter {
        /// The machine.
        machine: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// What runs, and where its log is.
    Status,
    /// The log of a component: etcd, kube-apiserver, node-1/kubelet, node-1/wherry, ...
    Logs {
        /// The component.
        component: String,
    },
    /// Kills a component (SIGKILL); another starts in its place.
    Restart {
        /// The component.
        component: String,
    },
    /// Kills everything on a node, empties what a boot empties, and starts it again.
    Reboot {
        /// The node.
        node: String,
    },
    /// Ends all of it, and leaves nothing.
    Down,
    /// The first process of a machine.
    #[command(hide = true)]
    First {
        /// The machine.
        machine: String,
    },
}

/// What a cluster can be.
#[derive(Debug, clap::Args)]
pub struct Up {
    /// How many nodes, 1 to 9.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// What runs the pods.
    #[arg(long, value_enum, default_value = "wherry")]
    runtime: Runtime,
    /// The minor version of Kubernetes.
    #[arg(long, value_parser = ["1.37", "1.34"], default_value = "1.37")]
    kubernetes: String,
    /// How kube-proxy makes Services.
    #[arg(long, value_enum, default_value = "nftables")]
    proxy: Proxy,
    /// How pods of one node reach those of another.
    #[arg(long, value_enum, default_value = "plain")]
    network: Network,
    /// Storage folder of a docker-registry whose images the cluster has too.
    #[arg(long, env = "WHERRY_CLUSTER_IMAGES")]
    images: Option<PathBuf>,
    /// Where the peers were built.
    #[arg(long, env = "WHERRY_PEERS", hide = true)]
    peers: PathBuf,
    /// The program under test.
    #[arg(long, env = "WHERRY_BIN", hide = true)]
    wherry: PathBuf,
}

/// Does what the arguments say; the first is the program's own name.
pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let cluster = match Cluster::try_parse_from(arguments) {
        Ok(cluster) => cluster,
        Err(said) => said.exit(),
    };
    let home = Home(cluster.home);
    match cluster.verb {
        Verb::Up(wanted) => up::up(&home, wanted),
        Verb::Kubectl { arguments } => {
            let kubectl = home.0.join("kubectl");
            replace(Command::new(&kubectl).args(arguments))
        }
        Verb::Run { command } => {
            replace(space::inside(&home, Machine::Control, true)?.args(command))
        }
        Verb::Enter { machine, command } => {
            replace(space::inside(&home, named(&machine)?, false)?.args(command))
        }
        Verb::Status => status(&home),
        Verb::Logs { component } => {
            let (_, path) = found(&home, &component)?;
            replace(Command::new("cat").arg(log_file(&path)))
        }
        Verb::Restart { component } => restart(&home, &component),
        Verb::Reboot { node } => up::reboot(&home, named(&node)?),
        Verb::Down => up::down(&home),
        Verb::First { machine } => match machine::first(&home, named(&machine)?)? {},
    }
}

/// Becomes that command; returns only when it cannot.
fn replace(command: &mut Command) -> anyhow::Result<()> {
    Err(command.exec()).with_context(|| format!("run {}", command.get_program().display()))
}

fn named(machine: &str) -> anyhow::Result<Machine> {
    Machine::named(machine)
        .with_context(|| format!("no machine {machine}; there are control, node-1, ..."))
}

fn found(home: &Home, component: &str) -> anyhow::Result<(Machine, PathBuf)> {
    home.component(component)
        .with_context(|| format!("no component {component}; hack/cluster status names them"))
}

fn restart(home: &Home, component: &str) -> anyhow::Result<()> {
    let (machine, path) = found(home, component)?;
    let pid = fs::read_to_string(pid_file(&path)).context("read its process id")?;
    let status = space::inside(home, machine, false)?.args(["kill", "-KILL", &pid]).status()?;
    if !status.success() {
        bail!("{component} did not run");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a table for whoever asked")]
fn status(home: &Home) -> anyhow::Result<()> {
    for machine in home.machines() {
        let mut files: Vec<_> = fs::read_dir(home.of(machine))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "pid"))
            .collect();
        files.sort();
        for file in files {
            let pid = fs::read_to_string(&file).unwrap_or_default();
            let runs = space::inside(home, machine, false).is_ok_and(|mut inside| {
                let probe = inside.args(["kill", "-0", &pid]);
                probe.output().is_ok_and(|output| output.status.success())
            });
            let state = if runs { "runs" } else { "ended" };
            let name = file.file_stem().unwrap_or_default().display().to_string();
            let component = format!("{machine}/{name}");
            println!("{state:<6} {component:<34} {}", log_file(&file).display());
        }
    }
    Ok(())
}
