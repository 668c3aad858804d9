//! `wherry logs`, and following a container to its end, as `wherry run` does where its session was cut. The log is a file, so it
//! goes on while no daemon runs; the end is the daemon's to tell.

use super::client::Client;
use super::failure::CliError;
use super::reading::{Reading, Show};
use clap::Args;
use shim_model::limits;
use shim_proto::wherry_v1 as own;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

/// How often a quiet log is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `wherry logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines; a number, or all
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines, default_value = "all")]
    tail: Tail,
    /// Print times
    #[arg(short, long)]
    timestamps: bool,
    /// Container
    container: String,
}

/// How many of the last lines.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<usize>);

fn lines(text: &str) -> Result<Tail, String> {
    match text.parse() {
        Ok(lines) => Ok(Tail(Some(lines))),
        // Docker takes a negative number for all.
        Err(_) if text == "all" || text.parse::<i64>().is_ok() => Ok(Tail(None)),
        Err(_) => Err("allowed is a number of lines, or all".to_owned()),
    }
}

/// Prints a log.
pub(crate) async fn logs(args: &Logs, client: &mut Client) -> Result<u8, CliError> {
    let id = client.find(&args.container).await?.container.id;
    let show = Show { tail: args.tail.0, timestamps: args.timestamps, ..Show::default() };
    let vigil = if args.follow { Some(Vigil::open(client, &id).await?) } else { None };
    let mut reading = Reading::open(&client.status(&id).await?.log_path, show)?;
    match vigil {
        Some(vigil) => drop(follow(&mut reading, vigil).await?),
        None => drop(reading.print_new()?),
    }
    Ok(0)
}

/// Prints a log until its container has ended and all was read; its code, `None` if it was removed
/// meanwhile.
pub(crate) async fn follow(
    reading: &mut Reading,
    mut vigil: Vigil,
) -> Result<Option<i32>, CliError> {
    let mut pause = Duration::ZERO;
    loop {
        // Asked first: what was written before the end is then read.
        let ended = vigil.look(pause).await?;
        let printed = reading.print_new()?;
        match ended {
            End::Code(code) if !printed => return Ok(Some(code)),
            End::Gone if !printed => return Ok(None),
            End::Open | End::Code(_) | End::Gone => {}
        }
        pause = if printed { Duration::ZERO } else { PAUSE };
    }
}

/// What is known of a container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has not ended, as far as is known.
    Open,
    /// With this code.
    Code(i32),
    /// Somebody removed it.
    Gone,
}

/// Waiting for a container's end; while it lasts, a container of `run --rm` is not removed. Goes on over a
/// restart of the daemon.
#[derive(Debug)]
pub(crate) struct Vigil {
    client: Client,
    id: String,
    /// `None` while the daemon is away.
    events: Option<Streaming<own::WaitEvent>>,
    away_since: Option<Instant>,
    end: End,
}

impl Vigil {
    /// Begins to wait.
    pub(crate) async fn open(client: &Client, id: &str) -> Result<Self, CliError> {
        let (mut client, id) = (client.clone(), id.to_owned());
        let request = own::WaitRequest { container_id: id.clone() };
        let events = Some(client.own.wait(request).await?.into_inner());
        Ok(Self { client, id, events, away_since: None, end: End::Open })
    }

    /// Waits so long for the end at most.
    async fn look(&mut self, patience: Duration) -> Result<End, CliError> {
        if self.end != End::Open {
            return Ok(self.end);
        }
        let until = Instant::now() + patience;
        let heard = match &mut self.events {
            Some(events) => tokio::time::timeout_at(until, events.message()).await,
            None => Ok(Ok(None)),
        };
        match heard {
            Err(_not_yet) => return Ok(End::Open),
            Ok(Ok(Some(event))) => self.end = End::Code(event.exit_code),
            Ok(Ok(None) | Err(_)) => self.ask_again().await?,
        }
        if self.events.is_none() {
            tokio::time::sleep_until(until).await;
        }
        Ok(self.end)
    }

    /// The daemon is away, or back.
    async fn ask_again(&mut self) -> Result<(), CliError> {
        self.events = None;
        let request = own::WaitRequest { container_id: self.id.clone() };
        match self.client.own.wait(request).await {
            Ok(events) => (self.events, self.away_since) = (Some(events.into_inner()), None),
            Err(status) if status.code() == Code::NotFound => self.end = End::Gone,
            Err(status) => {
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if !may_come_back(&status) || since.elapsed() > limits::DAEMON_AWAY {
                    return Err(status.into());
                }
            }
        }
        Ok(())
    }
}

/// What a broken connection or a daemon that ends is told as.
pub(crate) fn may_come_back(status: &Status) -> bool {
    [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal].contains(&status.code())
}
