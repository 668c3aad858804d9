//! Reserved names, and the rule for the same request twice: a repeat of an identical request while
//! the first is at work joins it; a repeat whose first caller left before the answer gets that
//! answer; anything else for a taken name is refused with the owner's id.

use crate::error::RuntimeError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// (name, namespace, uid, attempt) of a sandbox.
pub type SandboxName = shim_model::sandbox::config::Metadata;
/// (sandbox, name, attempt) of a container.
pub type ContainerName = (shim_model::id::SandboxId, shim_model::container::config::Metadata);

/// The answer of the first caller's work.
pub type Answer<I> = Option<Result<I, Arc<RuntimeError>>>;

/// Names of one kind of object.
#[derive(Debug)]
pub struct Names<N, I> {
    taken: Mutex<BTreeMap<N, Entry<I>>>,
}

#[derive(Debug)]
struct Entry<I> {
    request: Vec<u8>,
    answer: watch::Receiver<Answer<I>>,
    delivered: bool,
}

/// What happened to a request for a name.
#[derive(Debug)]
pub enum Begin<I> {
    /// The name is the caller's; answer through the ticket.
    New(Ticket<I>),
    /// The same request is at work or its answer was never delivered: wait for this.
    Joined(watch::Receiver<Answer<I>>),
    /// Somebody else's; the owner's id once it is known.
    Taken(Option<I>),
}

/// The right to answer for a name. Dropped without an answer, those who wait are told so.
#[derive(Debug)]
pub struct Ticket<I>(watch::Sender<Answer<I>>);

impl<I> Ticket<I> {
    /// Tells everybody who waits.
    pub fn answer(self, result: Result<I, Arc<RuntimeError>>) {
        self.0.send_replace(Some(result));
    }
}

impl<N, I> Default for Names<N, I> {
    fn default() -> Self {
        Self { taken: Mutex::new(BTreeMap::new()) }
    }
}

impl<N: Ord + Clone, I: Clone> Names<N, I> {
    /// Asks for a name; `request` identifies what is asked for.
    pub fn begin(&self, name: N, request: &[u8]) -> Begin<I> {
        let mut taken = self.taken.lock();
        if let Some(entry) = taken.get(&name) {
            let known = entry.answer.borrow().clone();
            let open = known.is_none() && entry.answer.has_changed().is_ok();
            return match known {
                _ if entry.request == request && (open || !entry.delivered) => {
                    Begin::Joined(entry.answer.clone())
                }
                Some(Ok(id)) => Begin::Taken(Some(id)),
                Some(Err(_)) | None => Begin::Taken(None),
            };
        }
        let (sender, answer) = watch::channel(None);
        taken.insert(name, Entry { request: request.to_vec(), answer, delivered: false });
        Begin::New(Ticket(sender))
    }

    /// The answer reached a caller: from now on the name is simply taken.
    pub fn delivered(&self, name: &N) {
        if let Some(entry) = self.taken.lock().get_mut(name) {
            entry.delivered = true;
            entry.request = Vec::new();
        }
    }

    /// Takes a name for an object that was found at start.
    pub fn restore(&self, name: N, id: I) {
        let (_, answer) = watch::channel(Some(Ok(id)));
        self.taken.lock().insert(name, Entry { request: Vec::new(), answer, delivered: true });
    }

    /// Frees a name.
    pub fn release(&self, name: &N) {
        self.taken.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{Begin, Names};

    fn names() -> Names<&'static str, u8> {
        Names::default()
    }

    #[test]
    fn the_same_request_joins_another_is_refused() {
        let names = names();
        let Begin::New(ticket) = names.begin("a", b"1") else { panic!("first must be new") };
        assert!(matches!(names.begin("a", b"1"), Begin::Joined(_)));
        assert!(matches!(names.begin("a", b"2"), Begin::Taken(None)));
        ticket.answer(Ok(7));
        assert!(matches!(names.begin("a", b"2"), Begin::Taken(Some(7))));
    }

    #[test]
    fn an_answer_nobody_heard_is_given_to_the_repeat() {
        let names = names();
        let Begin::New(ticket) = names.begin("a", b"1") else { panic!("first must be new") };
        ticket.answer(Ok(7));
        let Begin::Joined(answer) = names.begin("a", b"1") else { panic!("must join") };
        assert!(matches!(&*answer.borrow(), Some(Ok(7))));
        names.delivered(&"a");
        assert!(matches!(names.begin("a", b"1"), Begin::Taken(Some(7))));
    }

    #[test]
    fn a_released_name_is_free() {
        let names = names();
        drop(names.begin("a", b"1"));
        names.release(&"a");
        assert!(matches!(names.begin("a", b"2"), Begin::New(_)));
    }
}
