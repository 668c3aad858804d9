//! What attached clients say: from each client's pipe to the container's standard input, moved by the
//! kernel, so that no byte passes through a buffer of ours. Clients take turns. While the container reads
//! nothing, its clients wait; a container without standard input, or with a closed one, has its clients'
//! pipes closed. When that happens is decided by the container's `stdin_once` (`cri-contract.md` 2.4).

use super::attach::{Place, Speech};
use super::connections::Asker;
use super::container::{Container, Phase};
use super::watch::Watch;
use super::{Key, Monitor};
use shim_model::limits;
use shim_sys::fd;
use shim_sys::poll::Interest;

impl Container {
    /// Its terminal, which will be its standard input, is still in the making.
    const fn will_take_input(&self) -> bool {
        match &self.phase {
            Phase::Walking(walking) => self.tty && walking.stdin,
            Phase::Making(making) => self.tty && making.stdin && !making.made,
            Phase::Running | Phase::Draining { .. } | Phase::Ended(_) | Phase::NotStarted => false,
        }
    }
}

impl Monitor {
    /// Watches what a client says, as soon as the container takes it.
    pub(crate) fn begin_input(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let Place::At(container) = client.place else { return };
        let Some(input) = client.input.as_mut().filter(|input| !input.watched) else { return };
        let Some(container) = self.containers.get(&container) else { return };
        if container.stdin.full || (container.stdin.end.is_none() && container.will_take_input()) {
            return;
        }
        if container.stdin.end.is_some() {
            let watch = Watch::Input(key).token();
            input.watched = self.poll.add(&input.pipe, watch, Interest::Read).is_ok();
        }
        if !input.watched {
            (client.input, client.speech) = (None, Speech::Silent);
            self.forget_if_done(key);
        }
    }

    /// The container takes input (again).
    pub(crate) fn resume_input(&mut self, container: Key) {
        for key in self.clients_at(container) {
            self.begin_input(key);
        }
    }

    /// A client said something, or closed its end.
    pub(crate) fn pass_input(&mut self, key: Key) {
        let Some(client) = self.clients.get(&key) else { return };
        let (Some(container), Some(input)) = (client.container(), &client.input) else { return };
        let stdin = self.containers.get(&container).and_then(|known| known.stdin.end.as_ref());
        let Some(stdin) = stdin else { return self.close_stdin(container) };
        match fd::splice(&input.pipe, stdin, limits::PIPE_BYTES) {
            Ok(0) => self.input_over(key),
            Ok(_) => {}
            // It was readable, so it is the other side that is full.
            Err(error) if error.would_block() => self.stdin_is_full(container),
            // The container closed its end.
            Err(_closed) => self.close_stdin(container),
        }
    }

    fn stdin_is_full(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Some(stdin) = container.stdin.end.as_ref().filter(|_| !container.stdin.full) else {
            return;
        };
        if self.poll.add(stdin, Watch::Stdin(key).token(), Interest::Write).is_err() {
            return self.close_stdin(key);
        }
        container.stdin.full = true;
        for client in self.clients.values_mut().filter(|client| client.is_at(key)) {
            if let Some(input) = client.input.as_mut().filter(|input| input.watched) {
                input.watched = self.poll.remove(&input.pipe).is_err();
            }
        }
    }

    /// The container read something, or closed its end.
    pub(crate) fn stdin_has_room(&mut self, key: Key) {
        self.stdin_not_full(key);
        self.resume_input(key);
    }

    fn stdin_not_full(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        if let Some(stdin) = container.stdin.end.as_ref().filter(|_| container.stdin.full) {
            // A terminal has another descriptor, so closing would not end the watch.
            drop(self.poll.remove(stdin));
        }
        container.stdin.full = false;
    }

    /// A client's pipe ended.
    fn input_over(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.input = None;
        if client.speech == Speech::Closed {
            self.client_said_all(key);
        }
        self.forget_if_done(key);
    }

    /// A client closed its standard input: what it said before is passed on first.
    pub(crate) fn end_input(&mut self, asker: Asker) {
        let Some(key) = self.client_of(asker) else { return };
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.speech == Speech::Open {
            client.speech = Speech::Closed;
        }
        if client.input.is_none() {
            self.client_said_all(key);
        }
    }

    /// A client left: what it said is passed on as far as the container takes it, now or later.
    pub(crate) fn pass_last_input(&mut self, key: Key) {
        let waits = |monitor: &Self| {
            let client = monitor.clients.get(&key)?;
            client.input.as_ref().map(|input| fd::waiting(&input.pipe).unwrap_or(0))
        };
        // A pipe is emptied by one move, unless the container takes less.
        for _ in 0..2 {
            if waits(self).is_some_and(|bytes| bytes > 0) {
                self.pass_input(key);
            }
        }
        if waits(self) == Some(0) {
            self.input_over(key);
        }
    }

    /// Everything that a client had to say is with the container.
    pub(crate) fn client_said_all(&mut self, key: Key) {
        let Some(client) = self.clients.get(&key) else { return };
        let Some(key) = client.container().filter(|_| client.speech == Speech::Closed) else {
            return;
        };
        let container = self.containers.get(&key);
        // A terminal has no end: it is hung up when the container ends.
        if container.is_some_and(|container| container.stdin.once && !container.tty) {
            self.close_stdin(key);
        }
    }

    /// The container's standard input ends here, and what its clients say goes nowhere.
    pub(crate) fn close_stdin(&mut self, key: Key) {
        self.stdin_not_full(key);
        if let Some(container) = self.containers.get_mut(&key) {
            container.stdin.end = None;
        }
        for client in self.clients_at(key) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.input = None;
            }
            self.forget_if_done(client);
        }
    }
}
