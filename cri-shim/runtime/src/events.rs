//! What happened to pods and containers, told to whoever listens. Events are told when the change can be
//! seen, in the order of the changes, to everybody in the same order. A listener has a bounded buffer: one
//! that does not read gets what was buffered and then hears that it missed something; nothing waits for it.
//! So whoever listens first and lists then misses nothing.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::store::container::{Container, ContainerState};
use crate::store::pod::{Pod, PodState};
use parking_lot::Mutex;
use shim_model::id::SandboxId;
use shim_model::limits;
use shim_model::wire::Nanos;
use shim_sys::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What may happen to a pod or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is there.
    Created,
    /// It runs; a pod is ready.
    Started,
    /// It does not run any more, or could not be started.
    Stopped,
    /// It is gone.
    Deleted,
}

/// Something that happened, with everything in its pod as it was right afterwards.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub what: Happened,
    /// To which container, or to the pod if it is the pod's id.
    pub id: String,
    /// When.
    pub at: Nanos,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its state.
    pub state: Arc<PodState>,
    /// Its containers with their states.
    pub containers: Vec<(Arc<Container>, Arc<ContainerState>)>,
}

/// Those who listen.
#[derive(Debug)]
pub struct Events<T> {
    listeners: Mutex<Vec<Listener<T>>>,
    /// Listeners that were too slow, since the start.
    slow: AtomicU64,
}

#[derive(Debug)]
struct Listener<T> {
    to: Sender<Arc<T>>,
    lost: Arc<AtomicU64>,
}

/// One who listens.
#[derive(Debug)]
pub struct Listening<T> {
    from: Receiver<Arc<T>>,
    lost: Arc<AtomicU64>,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self { listeners: Mutex::default(), slow: AtomicU64::new(0) }
    }
}

impl<T> Events<T> {
    /// Listens from now on.
    pub fn listen(&self) -> Result<Listening<T>, RuntimeError> {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.to.is_closed());
        if listeners.len() >= limits::EVENT_LISTENERS {
            return Err(RuntimeError::Listeners(limits::EVENT_LISTENERS));
        }
        let (to, from) = channel(limits::EVENT_BUFFER);
        let lost = Arc::new(AtomicU64::new(0));
        listeners.push(Listener { to, lost: Arc::clone(&lost) });
        Ok(Listening { from, lost })
    }

    /// How many listeners were too slow.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Tells everybody; the event is only made if somebody listens. Never waits.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Option<T>) {
        // Held while it is told, so that everybody hears everything in one order.
        let mut listeners = self.listeners.lock();
        if listeners.is_empty() {
            return;
        }
        let Some(event) = event().map(Arc::new) else { return };
        listeners.retain(|listener| match listener.to.try_send(Arc::clone(&event)) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                listener.lost.fetch_add(1, Ordering::Relaxed);
                self.slow.fetch_add(1, Ordering::Relaxed);
                false
            }
        });
    }
}

impl<T> Listening<T> {
    /// The next event; an error once the listener was too slow. `None` never comes while there is a runtime.
    pub async fn next(&mut self) -> Result<Option<Arc<T>>, RuntimeError> {
        match self.from.recv().await {
            Some(event) => Ok(Some(event)),
            None if self.lost.load(Ordering::Relaxed) > 0 => Err(RuntimeError::Missed),
            None => Ok(None),
        }
    }
}

impl Runtime {
    /// Listens to what happens from now on.
    pub fn listen(&self) -> Result<Listening<Event>, RuntimeError> {
        self.0.events.listen()
    }

    /// Tells what happened to a container, right after it can be seen.
    pub(crate) fn tell_container(&self, what: Happened, container: &Container) {
        let record = &container.record;
        self.tell(what, &record.sandbox, record.id.as_str());
    }

    /// Tells what happened to a pod, right after it can be seen.
    pub(crate) fn tell_pod(&self, what: Happened, pod: &Arc<Pod>) {
        let id = &pod.record.id;
        self.0.events.tell(|| Some(self.event(what, Arc::clone(pod), id.to_string())));
    }

    fn tell(&self, what: Happened, pod: &SandboxId, id: &str) {
        self.0.events.tell(|| {
            // Without its pod an event means nothing to anybody.
            let pod = self.0.store.pod(pod.as_str()).ok()?;
            Some(self.event(what, pod, id.to_owned()))
        });
    }

    fn event(&self, what: Happened, pod: Arc<Pod>, id: String) -> Event {
        let containers = self.0.store.containers_of(&pod.record.id);
        let containers = containers.into_iter().map(|one| (Arc::clone(&one), one.state()));
        Event {
            what,
            id,
            at: clock::now(),
            state: pod.state(),
            containers: containers.collect(),
            pod,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Events;
    use crate::error::RuntimeError;
    use shim_model::limits;

    #[tokio::test]
    async fn everybody_hears_everything_in_order() {
        let events = Events::default();
        events.tell(|| -> Option<u32> { panic!("made for nobody") });
        let (mut one, mut two) = (events.listen().unwrap(), events.listen().unwrap());
        for number in 0..5_u32 {
            events.tell(|| Some(number));
        }
        for number in 0..5 {
            assert_eq!(*one.next().await.unwrap().unwrap(), number);
            assert_eq!(*two.next().await.unwrap().unwrap(), number);
        }
        drop(one);
        events.tell(|| Some(5));
        assert_eq!(*two.next().await.unwrap().unwrap(), 5);
    }

    #[tokio::test]
    async fn whoever_is_too_slow_hears_so_and_nobody_else_is_harmed() {
        let events = Events::default();
        let (mut slow, mut quick) = (events.listen().unwrap(), events.listen().unwrap());
        for number in 0..limits::EVENT_BUFFER + 10 {
            events.tell(|| Some(number));
            assert_eq!(*quick.next().await.unwrap().unwrap(), number);
        }
        for number in 0..limits::EVENT_BUFFER {
            assert_eq!(*slow.next().await.unwrap().unwrap(), number);
        }
        assert!(matches!(slow.next().await, Err(RuntimeError::Missed)));
    }

    #[test]
    fn listeners_are_bounded_and_their_places_free_again() {
        let events = Events::<u32>::default();
        let all: Vec<_> = (0..limits::EVENT_LISTENERS).map(|_| events.listen().unwrap()).collect();
        assert!(matches!(events.listen(), Err(RuntimeError::Listeners(_))));
        drop(all);
        assert!(events.listen().is_ok());
    }
}
