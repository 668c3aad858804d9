//! The story of an exec: its command starts when all of its client's streams are there, ends with its
//! client, and its code is the last word. What a command is, is the backend's.

use super::channels::Lanes;
use super::pump;
use super::session::{Backend, Streams};
use super::status::Form;

/// What to run, where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) container: &'a str,
    pub(crate) command: &'a [String],
    pub(crate) streams: Streams,
}

/// Runs it over the client's streams.
pub(crate) async fn exec<B: Backend>(backend: &B, what: Exec<'_>, form: Form, mut lanes: Lanes) {
    let ended = match backend.exec(what.container, what.command, what.streams).await {
        Ok(session) => pump::run(session, &mut lanes).await,
        Err(refused) => Err(refused),
    };
    pump::finish(lanes, form, &ended).await;
}
