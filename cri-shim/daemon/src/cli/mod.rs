//! The command line for people who know `docker`: every verb, the errors in a sentence, the exit codes.
//! 125 = wherry or the daemon failed, 126 = the program cannot be executed, 127 = it was not found,
//! otherwise the container's own code.

pub(crate) mod attach;
pub(crate) mod client;
pub(crate) mod exec;
pub(crate) mod failure;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod manage;
pub(crate) mod parse;
pub(crate) mod progress;
pub(crate) mod reading;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod table;
pub(crate) mod usage;

use clap::{Args, Subcommand, ValueEnum};
use client::Client;
use failure::CliError;
use futures_util::StreamExt;
use shim_model::limits;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the daemon serves unless it is told otherwise.
pub(crate) const SOCKET: &str = "/run/wherry/wherry.sock";

/// What is common to every verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(long, env = "WHERRY_SOCKET", default_value = SOCKET, value_name = "PATH")]
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
    /// Attach to a running container
    Attach(attach::Attach),
    /// Stop containers
    Stop(manage::Stop),
    /// Start ended containers again
    Start(manage::Start),
    /// Remove containers
    Rm(manage::Rm),
    /// Show everything about a container, a pod or an image
    Inspect(inspect::Inspect),
    /// Pull an image
    Pull(image::Pull),
    /// List images
    Images(image::List),
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

/// Runs a verb to its end.
pub(crate) fn main(global: &Global, verb: Verb) -> ExitCode {
    ExitCode::from(to_end(one(global, verb)).unwrap_or_else(|error| error.tell()))
}

/// Runs work on this thread alone.
pub(crate) fn to_end(work: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(format!("start: {error}")))?;
    let ended = runtime.block_on(work);
    // Whoever does not read what we printed last must not keep us here.
    runtime.shutdown_background();
    ended
}

async fn one(global: &Global, verb: Verb) -> Result<u8, CliError> {
    if matches!(verb, Verb::Version) {
        // Told even where no daemon answers.
        print(&format!("command line {}", env!("CARGO_PKG_VERSION")))?;
    }
    let mut client = Client::connect(&global.socket).await?;
    let format = global.format;
    match verb {
        Verb::Run(args) => Box::pin(run::run(*args, &mut client)).await,
        Verb::Ps(args) => list::ps(&args, &mut client, format).await,
        Verb::Logs(args) => logs::logs(&args, &mut client).await,
        Verb::Exec(args) => Box::pin(exec::exec(args, &mut client)).await,
        Verb::Attach(args) => Box::pin(attach::attach(&args, &mut client)).await,
        Verb::Stop(args) => manage::stop(&args, &client).await,
        Verb::Start(args) => manage::start(&args, &client).await,
        Verb::Rm(args) => manage::rm(&args, &client).await,
        Verb::Inspect(args) => inspect::inspect(&args, &mut client).await,
        Verb::Pull(args) => image::pull(&args.image, &mut client).await,
        Verb::Images(args) => image::images(&args, &mut client, format).await,
        Verb::Rmi(args) => image::rmi(&args, &client).await,
        Verb::Image { what } => image::image(what, &mut client).await,
        Verb::Pods => list::pods(&mut client, format).await,
        Verb::Info => list::info(&mut client, format).await,
        Verb::Version => list::version(&mut client).await,
    }
}

/// Does something with each of these names, several at once, and prints what it answers in the order of
/// the names. One that fails is told and stops nobody else; neither does a reader that left.
pub(crate) async fn each(
    names: &[String],
    client: &Client,
    act: impl AsyncFn(&mut Client, &str) -> Result<String, CliError>,
) -> Result<u8, CliError> {
    let act = &act;
    let work = names.iter().map(|name| async move { act(&mut client.clone(), name).await });
    let mut done = futures_util::stream::iter(work).buffered(limits::NAMES_AT_ONCE);
    let (mut code, mut printed) = (0, Ok(()));
    while let Some(answer) = done.next().await {
        match answer {
            Ok(text) if text.is_empty() => {}
            Ok(text) => printed = printed.and(print(&text)),
            Err(error) => code = error.tell(),
        }
    }
    printed.map(|()| code)
}

/// A line for people, on standard error. What came from a registry or an image cannot move the cursor.
/// Nobody is told that nobody reads.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{}", table::clean(text));
}

/// A line of output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|error| CliError::of_output(&error))
}
