//! The story of an attach: the client joins the streams of a container's first process until that ends or
//! the client leaves, which ends nothing but the attach. Several clients may be attached at once; who gets
//! what is the backend's.

use super::channels::Lanes;
use super::pump;
use super::session::{Backend, Streams};
use super::status::Form;

/// Attaches the client's streams.
pub(crate) async fn attach<B: Backend>(
    backend: &B,
    container: &str,
    streams: Streams,
    form: Form,
    mut lanes: Lanes,
) {
    let ended = match backend.attach(container, streams).await {
        Ok(session) => pump::run(session, &mut lanes).await,
        Err(refused) => Err(refused),
    };
    pump::finish(lanes, form, &ended).await;
}
