//! The command line for people who know `docker`: every verb, the errors in a sentence, the exit codes.
//! 125 = wherry or the daemon failed, 126 = the program cannot be executed, 127 = it was not found,
//! otherwise the container's own code.

pub(crate) mod client;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod manage;
pub(crate) mod parse;
pub(crate) mod run;
pub(crate) mod table;

use clap::{Args, Subcommand, ValueEnum};
use client::Client;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is common to every verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(
        long,
        env = "WHERRY_SOCKET",
        default_value = "/run/wherry/wherry.sock",
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
    /// How lists are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a container
    Run(Box<run::Run>),
    /// List containers
    Ps(list::Ps),
    /// Print what a container said
    Logs(logs::Logs),
    /// Run a command in a running container
    Exec(exec::Exec),
    /// Stop containers
    Stop(manage::Stop),
    /// Start ended containers again
    Start(manage::Start),
    /// Remove containers
    Rm(manage::Rm),
    /// Show everything about a container, a pod or an image
    Inspect(manage::Inspect),
    /// Pull an image
    Pull(image::Pull),
    /// List images
    Images,
    /// Remove images
    Rmi(image::Rmi),
    /// Import and export images
    Image {
        /// What to do
        #[command(subcommand)]
        what: image::ImageVerb,
    },
    /// List pods
    Pods,
    /// Tell about the daemon and the node
    Info,
    /// Print versions
    Version,
}

/// Why a verb failed, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct CliError {
    text: String,
    code: u8,
}

impl CliError {
    /// A failure of wherry or the daemon.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 125 }
    }

    /// With the exit code that Docker uses for a program that cannot be executed.
    pub(crate) fn of_start(status: &tonic::Status) -> Self {
        let text = status.message().to_owned();
        let code = match () {
            () if text.contains("No such file or directory") && text.contains("execve") => 127,
            () if text.contains("execve") => 126,
            () => 125,
        };
        Self { text, code }
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        Self::new(status.message())
    }
}

/// Runs a verb to its end.
pub(crate) fn main(global: &Global, verb: Verb) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(one(global, verb)),
        Err(error) => Err(CliError::new(format!("start: {error}"))),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("wherry: {}", error.text));
            ExitCode::from(error.code)
        }
    }
}

async fn one(global: &Global, verb: Verb) -> Result<u8, CliError> {
    if matches!(verb, Verb::Version) {
        // Told even where no daemon answers.
        print(&format!("command line {}", env!("CARGO_PKG_VERSION")));
    }
    let mut client = Client::connect(&global.socket).await?;
    let format = global.format;
    match verb {
        Verb::Run(args) => Box::pin(run::run(*args, &mut client)).await,
        Verb::Ps(args) => list::ps(&args, &mut client, format).await,
        Verb::Logs(args) => logs::logs(&args, &mut client).await,
        Verb::Exec(args) => exec::exec(args, &mut client).await,
        Verb::Stop(args) => manage::stop(&args, &mut client).await,
        Verb::Start(args) => manage::start(&args, &mut client).await,
        Verb::Rm(args) => manage::rm(&args, &mut client).await,
        Verb::Inspect(args) => manage::inspect(&args, &mut client).await,
        Verb::Pull(args) => image::pull(&args.image, &mut client).await.map(|_id| 0),
        Verb::Images => image::images(&mut client, format).await,
        Verb::Rmi(args) => image::rmi(&args, &mut client).await,
        Verb::Image { what } => image::image(what, &mut client).await,
        Verb::Pods => list::pods(&mut client, format).await,
        Verb::Info => list::info(&mut client, format).await,
        Verb::Version => list::version(&mut client).await,
    }
}

/// A line for people, on standard error.
#[expect(clippy::print_stderr, reason = "a command's own words")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// A line of output. Whoever reads may leave before the end (`wherry ps | head -1`).
pub(crate) fn print(text: &str) {
    let _the_reader_left = writeln!(std::io::stdout(), "{text}");
}
