//! Who is attached to a container: what it prints goes to each client's own pipe, after it went to the log.
//! A client that does not read fills its pipe, which the daemon sized; then it loses its place, or, where
//! it was allowed to hold the container up, the output is not read until it made room or its patience is
//! over. Either way the others and the log see every byte, and no buffer of ours grows beyond one read.
//! What clients say is `input.rs`.

use super::connections::Asker;
use super::container::Container;
use super::group::next;
use super::watch::Watch;
use super::{Key, Monitor};
use crate::error::{refused, telling};
use shim_model::id::ContainerId;
use shim_model::limits;
use shim_model::log::Output;
use shim_model::wire::{self, Failure, FromMonitor};
use shim_sys::error::Errno;
use shim_sys::poll::Interest;
use shim_sys::{clock, fd};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) asker: Asker,
    pub(crate) place: Place,
    pub(crate) speech: Speech,
    /// What it says; `None` if it says nothing (any more).
    pub(crate) input: Option<Input>,
    standard: Option<Sink>,
    error: Option<Sink>,
    hold: bool,
}

/// What is known of a client's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// It has none, or the container takes none.
    Silent,
    /// It may say more.
    Open,
    /// It closed its own, or left in a way that counts as that.
    Closed,
}

/// Where it is attached.
#[derive(Debug)]
pub(crate) enum Place {
    /// To a container that is not started yet.
    Early(ContainerId),
    /// To this one.
    At(Key),
}

/// What a client says.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) pipe: OwnedFd,
    /// It is watched: the container takes what it says.
    pub(crate) watched: bool,
}

/// Where a client reads one output.
#[derive(Debug)]
struct Sink {
    pipe: OwnedFd,
    /// What it is behind: the rest of one read, and of what the container printed right before its end.
    /// All clients of an output share it.
    behind: VecDeque<Rest>,
    /// When it loses its place unless it reads.
    patience: Option<Duration>,
    /// The output ended: this is the last of it.
    last: bool,
}

/// What a client has not got of one read: everything from an offset on.
#[derive(Debug)]
struct Rest {
    bytes: Rc<[u8]>,
    from: usize,
}

impl Client {
    /// When something is to be done about it.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let sinks = [&self.standard, &self.error].into_iter().flatten();
        sinks.filter_map(|sink| sink.patience).min()
    }

    pub(crate) const fn is_at(&self, container: Key) -> bool {
        matches!(self.place, Place::At(key) if key == container)
    }

    pub(crate) const fn container(&self) -> Option<Key> {
        match self.place {
            Place::At(key) => Some(key),
            Place::Early(_) => None,
        }
    }

    const fn sink(&mut self, output: Output) -> &mut Option<Sink> {
        match output {
            Output::Standard => &mut self.standard,
            Output::Error => &mut self.error,
        }
    }

    fn is_behind(&self, output: Output) -> bool {
        let sink = match output {
            Output::Standard => &self.standard,
            Output::Error => &self.error,
        };
        sink.as_ref().is_some_and(|sink| !sink.behind.is_empty())
    }

    /// Nothing goes to it or comes from it any more.
    const fn is_done(&self) -> bool {
        self.standard.is_none() && self.error.is_none() && self.input.is_none()
    }
}

/// What became of a write to a client.
enum Sent {
    All,
    /// This much; there is no room for the rest.
    Part(usize),
    /// It closed its end.
    Gone,
}

impl Sink {
    const fn new(pipe: OwnedFd) -> Self {
        Self { pipe, behind: VecDeque::new(), patience: None, last: false }
    }

    /// Sends what it is behind; true = it made room for some of it.
    fn catch_up(&mut self) -> (Sent, bool) {
        let mut some = false;
        while let Some(Rest { bytes, from }) = self.behind.front() {
            match self.send(bytes.get(*from..).unwrap_or_default()) {
                Sent::All => {
                    self.behind.pop_front();
                    some = true;
                }
                Sent::Part(sent) => {
                    if let Some(rest) = self.behind.front_mut() {
                        rest.from = rest.from.saturating_add(sent);
                    }
                    return (Sent::Part(sent), some || sent > 0);
                }
                Sent::Gone => return (Sent::Gone, some),
            }
        }
        (Sent::All, some)
    }

    fn send(&self, bytes: &[u8]) -> Sent {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match fd::write(&self.pipe, rest) {
                Ok(count) => sent = sent.saturating_add(count),
                Err(error) if error.would_block() => return Sent::Part(sent),
                Err(_closed) => return Sent::Gone,
            }
        }
        Sent::All
    }
}

impl Monitor {
    /// Attaches a client; from the next read on it gets everything.
    pub(crate) fn attach(&mut self, asker: Asker, request: &wire::Attach, fds: Vec<OwnedFd>) {
        let reply = match self.try_attach(asker, request, fds) {
            Ok(reply) => reply,
            Err(failure) => FromMonitor::Failed(failure),
        };
        self.reply(asker, &reply);
    }

    fn try_attach(
        &mut self,
        asker: Asker,
        request: &wire::Attach,
        fds: Vec<OwnedFd>,
    ) -> Result<FromMonitor, Failure> {
        let place = match self.key_of(&request.container) {
            Some(key) if self.containers.get(&key).is_some_and(Container::lives) => Place::At(key),
            None if request.early => Place::Early(request.container.clone()),
            Some(_) | None => return Ok(FromMonitor::Unknown),
        };
        let same = |client: &&Client| match (&client.place, &place) {
            (Place::At(one), Place::At(other)) => one == other,
            (Place::Early(one), Place::Early(other)) => one == other,
            (Place::At(_), Place::Early(_)) | (Place::Early(_), Place::At(_)) => false,
        };
        if self.clients.values().filter(same).count() >= limits::ATTACHES_PER_CONTAINER {
            let text = format!("attach: {} clients are there", limits::ATTACHES_PER_CONTAINER);
            return Err(refused(text, Errno::EAGAIN));
        }
        let mut fds = fds.into_iter();
        let input = request.stdin.then(|| next(&mut fds)).transpose()?;
        let mut sink = |wanted: bool| {
            let pipe = wanted.then(|| next(&mut fds)).transpose()?;
            pipe.iter().try_for_each(fd::set_nonblocking).map_err(telling("attach a client"))?;
            Ok::<_, Failure>(pipe.map(Sink::new))
        };
        let (standard, error) = (sink(request.stdout)?, sink(request.stderr)?);
        let input = input.map(|pipe| Input { pipe, watched: false });
        let speech = if input.is_some() { Speech::Open } else { Speech::Silent };
        let hold = request.hold;
        let client = Client { asker, place, speech, input, standard, error, hold };
        let key = self.next_key();
        self.clients.insert(key, client);
        self.begin_input(key);
        Ok(FromMonitor::Done)
    }

    /// Those who waited for this container's start.
    pub(crate) fn seat_early(&mut self, container: Key) {
        let Some(id) = self.containers.get(&container).map(|container| &container.id) else {
            return;
        };
        let mut seated = Vec::new();
        for (key, client) in &mut self.clients {
            if matches!(&client.place, Place::Early(waits) if waits == id) {
                client.place = Place::At(container);
                seated.push(*key);
            }
        }
        for key in seated {
            self.begin_input(key);
        }
    }

    /// The container never ran: nobody is attached to it.
    pub(crate) fn unseat(&mut self, container: Key) {
        self.clients.retain(|_, client| !client.is_at(container));
    }

    /// Gives what was printed to every client of this output.
    pub(crate) fn fan_out(&mut self, container: Key, output: Output, bytes: &[u8]) {
        let mut shared = None;
        for key in self.clients_at(container) {
            self.send_to((key, output), bytes, &mut shared);
        }
    }

    pub(crate) fn clients_at(&self, container: Key) -> Vec<Key> {
        let all = self.clients.iter().filter(|(_, client)| client.is_at(container));
        all.map(|(key, _)| *key).collect()
    }

    fn send_to(
        &mut self,
        (key, output): (Key, Output),
        bytes: &[u8],
        shared: &mut Option<Rc<[u8]>>,
    ) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let hold = client.hold;
        let Some(sink) = client.sink(output) else { return };
        let mut rest = |from| Rest { bytes: Rc::clone(shared.get_or_insert(bytes.into())), from };
        if !sink.behind.is_empty() {
            // The container ended while it was held up: this is what it printed last.
            return sink.behind.push_back(rest(0));
        }
        match sink.send(bytes) {
            Sent::All => {}
            Sent::Part(sent) if hold => {
                sink.behind.push_back(rest(sent));
                self.wait_for(key, output);
            }
            Sent::Part(_) => self.lose(key),
            Sent::Gone => self.end_sink(key, output),
        }
    }

    /// A client is behind: its container's output is not read until it is not.
    fn wait_for(&mut self, key: Key, output: Output) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let Place::At(container) = client.place else { return };
        let Some(sink) = client.sink(output) else { return };
        sink.patience = Some(clock::monotonic().saturating_add(limits::ATTACH_PATIENCE));
        let watch = Watch::Room(key, output).token();
        if self.poll.add(&sink.pipe, watch, Interest::Write).is_err() {
            return self.lose(key);
        }
        let Some(container) = self.containers.get_mut(&container) else { return };
        if let Some(stream) = container.stream(output).as_mut().filter(|stream| !stream.held) {
            stream.held = self.poll.remove(&stream.pipe).is_ok();
        }
    }

    /// Reads a container's output again, if nobody is behind any more.
    fn go_on(&mut self, place: Option<Key>, output: Output) {
        let Some(key) = place else { return };
        if self.clients.values().any(|client| client.is_at(key) && client.is_behind(output)) {
            return;
        }
        let Some(container) = self.containers.get_mut(&key) else { return };
        if let Some(stream) = container.stream(output).as_mut().filter(|stream| stream.held) {
            let watch = Watch::Output(key, output).token();
            stream.held = self.poll.add(&stream.pipe, watch, Interest::Read).is_err();
        }
    }

    /// A client that is behind read something, or closed its end.
    pub(crate) fn client_has_room(&mut self, key: Key, output: Output) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let container = client.container();
        let Some(sink) = client.sink(output) else { return };
        match sink.catch_up() {
            (Sent::Part(_), some) => {
                if some {
                    let patience = clock::monotonic().saturating_add(limits::ATTACH_PATIENCE);
                    sink.patience = Some(patience);
                }
            }
            (Sent::All, _) if !sink.last => {
                sink.patience = None;
                drop(self.poll.remove(&sink.pipe));
                self.go_on(container, output);
            }
            (Sent::All | Sent::Gone, _) => self.end_sink(key, output),
        }
    }

    /// Closes a client's end of one output.
    fn end_sink(&mut self, key: Key, output: Output) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let container = client.container();
        // Its only descriptor: that ends a watch too.
        *client.sink(output) = None;
        self.forget_if_done(key);
        self.go_on(container, output);
    }

    pub(crate) fn forget_if_done(&mut self, key: Key) {
        if self.clients.get(&key).is_some_and(Client::is_done) {
            self.clients.remove(&key);
        }
    }

    /// A client gets nothing any more, because it did not read. What it says still counts.
    fn lose(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let Asker { connection, number } = client.asker;
        self.silence(key);
        self.tell(connection, &FromMonitor::AttachLost { number });
    }

    /// A client gets nothing any more.
    pub(crate) fn silence(&mut self, key: Key) {
        self.end_sink(key, Output::Standard);
        self.end_sink(key, Output::Error);
    }

    /// Clients that held their container up for too long.
    pub(crate) fn lose_late_clients(&mut self, now: Duration) {
        let is_late = |client: &Client| client.deadline().is_some_and(|at| at <= now);
        let all = self.clients.iter().filter(|(_, client)| is_late(client));
        let late: Vec<Key> = all.map(|(key, _)| *key).collect();
        for key in late {
            self.lose(key);
        }
    }

    /// A container's output ended; who is behind still gets the rest.
    pub(crate) fn end_outputs(&mut self, container: Key, output: Output) {
        for key in self.clients_at(container) {
            let Some(client) = self.clients.get_mut(&key) else { continue };
            if client.is_behind(output) {
                client.sink(output).iter_mut().for_each(|sink| sink.last = true);
            } else {
                self.end_sink(key, output);
            }
        }
    }

    /// The client that this request attached.
    pub(crate) fn client_of(&self, asker: Asker) -> Option<Key> {
        let mut all = self.clients.iter();
        all.find(|(_, client)| client.asker == asker).map(|(key, _)| *key)
    }

    /// The daemon is gone, and with it its clients. That is nobody's will: a standard input that is to be
    /// closed after the first client stays open, unless that client had closed it.
    pub(crate) fn lose_clients_of(&mut self, connection: Key) {
        let theirs = |client: &Client| client.asker.connection == connection;
        let all = self.clients.iter().filter(|(_, client)| theirs(client));
        let keys: Vec<Key> = all.map(|(key, _)| *key).collect();
        for key in keys {
            self.leave_container(key, true);
        }
    }

    /// A client left.
    pub(crate) fn detach(&mut self, asker: Asker, keep_stdin: bool) {
        if let Some(key) = self.client_of(asker) {
            self.leave_container(key, keep_stdin);
        }
    }

    fn leave_container(&mut self, key: Key, keep_stdin: bool) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.speech == Speech::Open && !keep_stdin {
            client.speech = Speech::Closed;
        }
        match client.speech {
            Speech::Silent | Speech::Open => client.input = None,
            Speech::Closed if client.input.is_none() => self.client_said_all(key),
            Speech::Closed => self.pass_last_input(key),
        }
        self.silence(key);
        self.forget_if_done(key);
    }
}
