//! Connections from the daemon: several at once, for it may come and go. Messages in; replies and
//! events out, queued while the other side does not read, up to a bound. What a request means is
//! `command.rs`.

use super::watch::Watch;
use super::{Key, Monitor};
use crate::zygote::BOUNDS;
use shim_model::limits;
use shim_model::wire::{FromMonitor, encode_as, oldest};
use shim_sys::poll::Interest;
use shim_sys::socket;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

/// Who asked, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: Key,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    queue: VecDeque<Message>,
    /// It is watched for room to write.
    waits: bool,
    /// Of the other side, as far as it was heard.
    version: u8,
}

/// What is to be sent.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Connections(BTreeMap<Key, Connection>);

impl Connections {
    pub(crate) fn socket(&self, key: Key) -> Option<&OwnedFd> {
        self.0.get(&key).map(|connection| &connection.socket)
    }
}

impl Monitor {
    /// Takes whoever waits. Only the monitor's own user is served.
    pub(crate) fn accept(&mut self) {
        while let Ok(socket) = socket::accept(&self.listener) {
            let known = socket::peer_uid(&socket).is_ok_and(|uid| uid == 0);
            if !known || self.connections.0.len() >= limits::MONITOR_CONNECTIONS {
                continue;
            }
            let key = self.next_key();
            if self.poll.add(&socket, Watch::Connection(key).token(), Interest::Read).is_ok() {
                let (queue, waits, version) = (VecDeque::new(), false, oldest());
                let connection = Connection { socket, queue, waits, version };
                self.connections.0.insert(key, connection);
            }
        }
    }

    pub(crate) fn connection_ready(&mut self, key: Key, writable: bool) {
        if writable {
            self.flush(key);
        }
        let Some(socket) = self.connections.socket(key) else { return };
        match socket::recv(socket, BOUNDS) {
            Ok(Some(packet)) => self.obey(key, packet),
            Ok(None) => self.end_connection(key),
            Err(error) if error.would_block() => {}
            Err(_broken) => self.end_connection(key),
        }
    }

    /// Ends a connection and what was done only for it.
    pub(crate) fn end_connection(&mut self, key: Key) {
        // Closing the only descriptor ends the watch as well.
        self.connections.0.remove(&key);
        self.forget_asker(key);
    }

    /// True while the connection of whoever asked is there.
    pub(crate) fn is_there(&self, asker: Asker) -> bool {
        self.connections.0.contains_key(&asker.connection)
    }

    /// The other side speaks this version.
    pub(crate) fn heard_version(&mut self, key: Key, version: u8) {
        if let Some(connection) = self.connections.0.get_mut(&key) {
            connection.version = version;
        }
    }

    /// What whoever asked speaks.
    pub(crate) fn version_of(&self, asker: Asker) -> u8 {
        self.connections.0.get(&asker.connection).map_or(oldest(), |connection| connection.version)
    }

    pub(crate) fn reply(&mut self, asker: Asker, body: &FromMonitor) {
        self.send(asker, body, None);
    }

    /// Replies with a descriptor beside the message.
    pub(crate) fn reply_with(&mut self, asker: Asker, body: &FromMonitor, fd: Option<OwnedFd>) {
        self.send(asker, body, fd);
    }

    /// Tells a connection.
    pub(crate) fn tell(&mut self, connection: Key, event: &FromMonitor) {
        self.send(Asker { connection, number: 0 }, event, None);
    }

    /// Tells every connection.
    pub(crate) fn tell_all(&mut self, event: &FromMonitor) {
        let keys: Vec<_> = self.connections.0.keys().copied().collect();
        for key in keys {
            self.tell(key, event);
        }
    }

    fn send(&mut self, to: Asker, body: &FromMonitor, descriptor: Option<OwnedFd>) {
        let Some(connection) = self.connections.0.get_mut(&to.connection) else { return };
        let Ok(bytes) = encode_as(connection.version, to.number, body) else { return };
        if connection.queue.len() >= limits::MONITOR_QUEUE {
            self.end_connection(to.connection);
            return;
        }
        connection.queue.push_back(Message { bytes, descriptor });
        self.flush(to.connection);
    }

    fn flush(&mut self, key: Key) {
        let Some(connection) = self.connections.0.get_mut(&key) else { return };
        while let Some(Message { bytes, descriptor }) = connection.queue.front() {
            let fds: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match socket::send(&connection.socket, bytes, &fds, BOUNDS.inline) {
                Ok(()) => drop(connection.queue.pop_front()),
                Err(error) if error.would_block() => break,
                // Its end is read from the socket soon; nothing more can be told.
                Err(_gone) => connection.queue.clear(),
            }
        }
        let waits = !connection.queue.is_empty();
        if waits == connection.waits {
            return;
        }
        connection.waits = waits;
        let interest = if waits { Interest::ReadWrite } else { Interest::Read };
        let token = Watch::Connection(key).token();
        if self.poll.change(&connection.socket, token, interest).is_err() {
            self.end_connection(key);
        }
    }
}
