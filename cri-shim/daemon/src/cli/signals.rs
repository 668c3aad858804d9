//! Signals that a person or a supervisor sends us: once they are watched for they no longer end us, and
//! whoever watches decides whether they stop a container, are passed on to it, or end us all the same.

use super::client::Client;
use super::failure::CliError;
use super::say;
use shim_proto::wherry_v1 as own;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What can be said to a process, but for those that nobody can catch.
const SIGNALS: [(SignalKind, &str); 6] = [
    (SignalKind::hangup(), "HUP"),
    (SignalKind::interrupt(), "INT"),
    (SignalKind::quit(), "QUIT"),
    (SignalKind::terminate(), "TERM"),
    (SignalKind::user_defined1(), "USR1"),
    (SignalKind::user_defined2(), "USR2"),
];

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    kind: SignalKind,
    name: &'static str,
}

impl Heard {
    /// True if somebody wants us to end.
    pub(crate) fn asks_to_end(self) -> bool {
        [SignalKind::interrupt(), SignalKind::terminate()].contains(&self.kind)
    }

    /// The exit code of a program that it ends.
    pub(crate) fn code(self) -> u8 {
        u8::try_from(self.kind.as_raw_value().saturating_add(128)).unwrap_or(125)
    }

    /// Sends it to a container. One that cannot be sent is told: the container may have ended a moment ago,
    /// and its end comes next.
    pub(crate) async fn pass_on(self, client: &Client, id: &str) {
        let signal = self.kind.as_raw_value();
        let request = own::SignalRequest { container_id: id.to_owned(), signal };
        if let Err(status) = client.own.clone().signal(request).await {
            say(&format!("wherry: SIG{} was not passed on: {}", self.name, status.message()));
        }
    }
}

/// Those that are watched for.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, Heard)>);

impl Signals {
    /// From now on they do not end us.
    pub(crate) fn watch() -> Result<Self, CliError> {
        let watch = |(kind, name)| match signal(kind) {
            Ok(signal) => Ok((signal, Heard { kind, name })),
            Err(error) => Err(CliError::new(format!("watch for signals: {error}"))),
        };
        SIGNALS.into_iter().map(watch).collect::<Result<_, _>>().map(Self)
    }

    /// None at all.
    pub(crate) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Heard {
        self.first(|_any| true).await
    }

    /// Waits until somebody wants us to end.
    pub(crate) async fn asked(&mut self) {
        self.first(Heard::asks_to_end).await;
    }

    async fn first(&mut self, wanted: impl Fn(Heard) -> bool) -> Heard {
        std::future::poll_fn(|context| {
            for (signal, heard) in self.0.iter_mut().filter(|(_, heard)| wanted(*heard)) {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*heard);
                }
            }
            Poll::Pending
        })
        .await
    }
}
