//! Waiting for many descriptors at once (`epoll(7)`), level-triggered: what was not dealt with is told
//! again. A watch is named by a number that the caller chose. Deadlines are the wait's timeout.

use crate::error::SysError;
use crate::fd;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What a watch waits for. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
    /// Room to write.
    Write,
    /// Only errors and hang-ups.
    Nothing,
}

impl Interest {
    const fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::ReadWrite => EventFlags::IN.union(EventFlags::OUT),
            Self::Write => EventFlags::OUT,
            Self::Nothing => EventFlags::empty(),
        }
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Number of the watch.
    pub token: u64,
    /// Room to write; everything else is found out by reading.
    pub writable: bool,
}

/// A set of watched descriptors. A watch ends when its last descriptor is closed, or by `remove`.
#[derive(Debug)]
pub struct Poll(OwnedFd);

impl Poll {
    /// An empty set.
    pub fn new() -> Result<Self, SysError> {
        epoll::create(CreateFlags::CLOEXEC)
            .map(Self)
            .map_err(SysError::rustix("epoll_create1", || ""))
    }

    /// Begins to watch.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), SysError> {
        epoll::add(&self.0, &fd, EventData::new_u64(token), interest.flags())
            .map_err(SysError::rustix("epoll_ctl", || fd::describe(&fd)))
    }

    /// Changes what a watch waits for.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), SysError> {
        epoll::modify(&self.0, &fd, EventData::new_u64(token), interest.flags())
            .map_err(SysError::rustix("epoll_ctl", || fd::describe(&fd)))
    }

    /// Ends a watch.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), SysError> {
        epoll::delete(&self.0, &fd).map_err(SysError::rustix("epoll_ctl", || fd::describe(&fd)))
    }

    /// Waits until something happens or `timeout` passed (`None` = for ever), and appends it to
    /// `events`, at most 32 at once. An interrupted wait is an empty answer.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<(), SysError> {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 32];
        // Rounded up to the next millisecond: the wait must not end before its deadline.
        let timeout = timeout.map(|time| {
            let millis = time.as_nanos().div_ceil(1_000_000);
            let millis = u64::try_from(millis).unwrap_or(u64::MAX).min(3_600_000);
            rustix::event::Timespec {
                tv_sec: i64::try_from(millis / 1000).unwrap_or(0),
                tv_nsec: i64::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
            }
        });
        match epoll::wait(&self.0, &mut space, timeout.as_ref()) {
            Ok((found, _)) => {
                events.extend(found.iter().map(|event| Event {
                    token: event.data.u64(),
                    writable: { event.flags }.contains(EventFlags::OUT),
                }));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(SysError::rustix("epoll_wait", || "")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interest, Poll};
    use std::time::Duration;

    #[test]
    fn a_watch_tells_its_own_number_until_it_is_read() {
        let poll = Poll::new().unwrap();
        let (input, output) = crate::fd::pipe().unwrap();
        poll.add(&input, 42, Interest::Read).unwrap();
        let mut events = Vec::new();
        poll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty());
        crate::fd::write_all(&output, b"x").unwrap();
        for _ in 0..2 {
            poll.wait(&mut events, None).unwrap();
        }
        assert_eq!(events.iter().map(|event| event.token).collect::<Vec<_>>(), [42, 42]);
    }
}
