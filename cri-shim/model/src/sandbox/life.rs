//! The life of a pod sandbox.
//!
//! ```text
//! (record written) Starting --made--> Ready --stopped, init or monitor gone--> NotReady --removed--> gone
//!                      '-----failed------------------------------------------------^
//! ```
//!
//! `Starting` is not shown to the kubelet; it reserves the name. Nothing leads back to `Ready`.

use crate::wire::Nanos;
use serde::{Deserialize, Serialize};

/// Where a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its record exists; its parts are being made.
    Starting {},
    /// Containers may run in it.
    Ready { since: Nanos },
    /// It ended; its containers and its record stay until it is removed.
    NotReady { since: Nanos, reason: String },
}

/// What may happen to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything was made.
    Made { at: Nanos },
    /// It was stopped, or something it cannot live without ended.
    Ended { at: Nanos, reason: String },
}

/// A state in which an event cannot happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {state} cannot be {event}")]
pub struct Illegal {
    /// The state's word.
    pub state: &'static str,
    /// The event's word.
    pub event: &'static str,
}

impl State {
    /// One word for messages.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Starting {} => "starting",
            Self::Ready { .. } => "ready",
            Self::NotReady { .. } => "not ready",
        }
    }

    /// The state after an event. Ending twice keeps the first reason.
    pub fn after(self, event: Event) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Starting {}, Event::Made { at }) => Ok(Self::Ready { since: at }),
            (Self::Starting {} | Self::Ready { .. }, Event::Ended { at, reason }) => {
                Ok(Self::NotReady { since: at, reason })
            }
            (ended @ Self::NotReady { .. }, Event::Ended { .. }) => Ok(ended),
            (state @ (Self::Ready { .. } | Self::NotReady { .. }), Event::Made { .. }) => {
                Err(Illegal { state: state.word(), event: "made" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, State};

    #[test]
    fn nothing_leads_back_to_ready() {
        let ended = State::NotReady { since: 1, reason: "stopped".into() };
        assert!(ended.clone().after(Event::Made { at: 2 }).is_err());
        assert_eq!(ended.clone().after(Event::Ended { at: 3, reason: "again".into() }), Ok(ended));
    }
}
