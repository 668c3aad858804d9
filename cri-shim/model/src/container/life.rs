//! The life of a container.
//!
//! ```text
//! (record written) Creating --prepared--> Created --started--> Running --ended--> Exited --removed--> gone
//!                      |                   ^ '------start failed, lost------------^ |
//!                      |                   '-----------------again------------------'
//!                      '--failed: torn down, never shown
//! ```
//!
//! Nothing follows `Exited` but being made ready again, which only the command line asks for. *Unknown* is
//! never stored.

use crate::wire::{Nanos, Process};
use serde::{Deserialize, Serialize};

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its record exists; its root is being prepared.
    Creating {},
    /// It may be started.
    Created {},
    /// Its program runs.
    Running { process: Process, started: Nanos },
    /// It ended, or never started.
    Exited { started: Nanos, finished: Nanos, code: i32, reason: Reason, message: String },
}

/// Why a container ended; the words are the CRI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Code 0.
    Completed,
    /// Any other code.
    Error,
    /// Its cgroup ran out of memory.
    OomKilled,
    /// Its program could not be executed.
    StartError,
    /// Its end was lost.
    Unknown,
}

impl Reason {
    /// The word in `ContainerStatus.reason`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }

    /// The reason of an ordinary end.
    pub const fn of(code: i32, oom: bool) -> Self {
        match (code, oom) {
            (0, false) => Self::Completed,
            (_, true) => Self::OomKilled,
            (_, false) => Self::Error,
        }
    }
}

/// What may happen to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its root and plan are ready.
    Prepared,
    /// Its program was executed.
    Started { process: Process, at: Nanos },
    /// It ended.
    Ended { at: Nanos, code: i32, reason: Reason, message: String },
    /// It is to be started once more.
    Again,
}

/// A state in which an event cannot happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {state} cannot be {event}")]
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
            Self::Creating {} => "being created",
            Self::Created {} => "created",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
        }
    }

    /// The state after an event. Ending twice keeps the first end: it was recorded first.
    pub fn after(self, event: Event) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Creating {}, Event::Prepared) | (Self::Exited { .. }, Event::Again) => {
                Ok(Self::Created {})
            }
            (Self::Created {}, Event::Started { process, at }) => {
                Ok(Self::Running { process, started: at })
            }
            (Self::Creating {} | Self::Created {}, Event::Ended { at, code, reason, message }) => {
                Ok(Self::Exited { started: 0, finished: at, code, reason, message })
            }
            (Self::Running { started, .. }, Event::Ended { at, code, reason, message }) => {
                Ok(Self::Exited { started, finished: at.max(started), code, reason, message })
            }
            (ended @ Self::Exited { .. }, Event::Ended { .. }) => Ok(ended),
            (
                state @ (Self::Created {} | Self::Running { .. } | Self::Exited { .. }),
                Event::Prepared,
            ) => Err(Illegal { state: state.word(), event: "prepared" }),
            (
                state @ (Self::Creating {} | Self::Running { .. } | Self::Exited { .. }),
                Event::Started { .. },
            ) => Err(Illegal { state: state.word(), event: "started" }),
            (
                state @ (Self::Creating {} | Self::Created {} | Self::Running { .. }),
                Event::Again,
            ) => Err(Illegal { state: state.word(), event: "started again" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Reason, State};
    use crate::wire::Process;
    use proptest::prelude::{Just, Strategy, prop_oneof, proptest};

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Prepared),
            (0i64..9).prop_map(|at| Event::Started { process: Process { pid: 1, start: 1 }, at }),
            (0i64..9, 0i32..3).prop_map(|(at, code)| Event::Ended {
                at,
                code,
                reason: Reason::of(code, false),
                message: String::new()
            }),
            Just(Event::Again),
        ]
    }

    proptest! {
        #[test]
        fn nothing_but_again_follows_exit(events in proptest::collection::vec(event(), 0..12)) {
            let mut state = State::Creating {};
            for event in events {
                let (before, again) = (state.clone(), event == Event::Again);
                state = state.after(event).unwrap_or_else(|_| before.clone());
                if let State::Exited { .. } = before {
                    assert_eq!(state, if again { State::Created {} } else { before });
                } else if again {
                    assert_eq!(state, before);
                }
            }
        }
    }

    #[test]
    fn the_end_is_never_before_the_start() {
        let running = State::Running { process: Process { pid: 1, start: 1 }, started: 10 };
        let ended = running.after(Event::Ended {
            at: 5,
            code: 0,
            reason: Reason::Completed,
            message: String::new(),
        });
        assert!(matches!(ended, Ok(State::Exited { started: 10, finished: 10, .. })));
    }
}
