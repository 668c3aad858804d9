//! What a watched descriptor is, packed into the number that `epoll` gives back: the kind in the high
//! half, the key in the low one. Pure.

use super::Key;
use shim_model::log::Output;

/// What happened to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Somebody wants to connect.
    Listener,
    /// A child ended.
    Children,
    /// A message, or room for one.
    Connection(Key),
    /// A container's clone said something about its walk.
    Walk(Key),
    /// A container printed something.
    Output(Key, Output),
    /// An exec's clone said something about its walk.
    ExecWalk(Key),
    /// A container's standard input has room.
    Stdin(Key),
    /// An attached client says something.
    Input(Key),
    /// An attached client has room for what it is behind.
    Room(Key, Output),
}

impl Watch {
    pub(crate) fn token(self) -> u64 {
        let (kind, key) = match self {
            Self::Listener => (1_u64, 0),
            Self::Children => (2, 0),
            Self::Connection(key) => (3, key),
            Self::Walk(key) => (4, key),
            Self::Output(key, Output::Standard) => (5, key),
            Self::Output(key, Output::Error) => (6, key),
            Self::ExecWalk(key) => (7, key),
            Self::Stdin(key) => (8, key),
            Self::Input(key) => (9, key),
            Self::Room(key, Output::Standard) => (10, key),
            Self::Room(key, Output::Error) => (11, key),
        };
        kind << 32 | u64::from(key)
    }

    pub(crate) fn from_token(token: u64) -> Option<Self> {
        let key = Key::try_from(token & u64::from(u32::MAX)).ok()?;
        match token >> 32 {
            1 => Some(Self::Listener),
            2 => Some(Self::Children),
            3 => Some(Self::Connection(key)),
            4 => Some(Self::Walk(key)),
            5 => Some(Self::Output(key, Output::Standard)),
            6 => Some(Self::Output(key, Output::Error)),
            7 => Some(Self::ExecWalk(key)),
            8 => Some(Self::Stdin(key)),
            9 => Some(Self::Input(key)),
            10 => Some(Self::Room(key, Output::Standard)),
            11 => Some(Self::Room(key, Output::Error)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Watch;
    use shim_model::log::Output;

    #[test]
    fn every_watch_comes_back_from_its_number() {
        let all = [
            Watch::Listener,
            Watch::Children,
            Watch::Connection(7),
            Watch::Walk(u32::MAX),
            Watch::Output(1, Output::Standard),
            Watch::Output(1, Output::Error),
            Watch::ExecWalk(0),
            Watch::Stdin(2),
            Watch::Input(3),
            Watch::Room(4, Output::Standard),
            Watch::Room(4, Output::Error),
        ];
        for watch in all {
            assert_eq!(Watch::from_token(watch.token()), Some(watch));
        }
        assert_eq!(Watch::from_token(99 << 32), None);
    }
}
