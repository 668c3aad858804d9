//! How far a walk was when: read by the clone itself, carried in the one message that it sends anyway, so
//! that knowing them costs a few reads of the clock and no system call. What is made of them is the
//! daemon's.

use shim_model::wire::StartTimes;
use shim_sys::clock;

/// Length of the message that carries them: its kind, then each time.
const BYTES: usize = 1 + 3 * 8;

/// How far a walk was when, nanoseconds of the clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WalkTimes {
    /// It began.
    pub(crate) entered: u64,
    /// The mount chapter was done.
    pub(crate) mounted: u64,
    /// All was done but the filter.
    pub(crate) walked: u64,
}

impl WalkTimes {
    /// A message of this kind that carries them. Allocates nothing.
    pub(crate) fn message(self, kind: u8) -> [u8; BYTES] {
        let mut message = [kind; BYTES];
        let times = [self.entered, self.mounted, self.walked];
        for (place, time) in
            message.iter_mut().skip(1).zip(times.map(u64::to_ne_bytes).as_flattened())
        {
            *place = *time;
        }
        message
    }

    /// What such a message says after its kind.
    pub(crate) fn read(times: &[u8]) -> Self {
        let (times, _) = times.as_chunks::<8>();
        let time = |index: usize| times.get(index).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        Self { entered: time(0), mounted: time(1), walked: time(2) }
    }

    /// No step took any time: a start that another program made at once.
    pub(crate) const fn all_at(moment: u64) -> Self {
        Self { entered: moment, mounted: moment, walked: moment }
    }

    /// With what came before and after.
    pub(crate) const fn between(self, asked: u64, executed: u64) -> StartTimes {
        let Self { entered, mounted, walked } = self;
        StartTimes { asked, entered, mounted, walked, executed }
    }
}

/// Now, on the clock that never goes back.
pub(crate) fn moment() -> u64 {
    u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX)
}
