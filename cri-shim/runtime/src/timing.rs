//! The stopwatch behind phases: reads clocks, remembers steps, decides nothing. One for each thing that is
//! made; clones share it, so that work on other threads and side by side is timed too.

use parking_lot::Mutex;
use shim_model::phases::{Phase, Phases, Step};
use shim_model::wire::{Nanos, StartTimes};
use shim_sys::clock;
use std::sync::Arc;

/// A running stopwatch.
#[derive(Clone, Debug)]
pub(crate) struct Timing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The wall clock at the beginning, and the clock that never goes back.
    wall: Nanos,
    zero: u64,
    steps: Mutex<Vec<Step>>,
}

impl Timing {
    pub(crate) fn begin() -> Self {
        let (wall, zero) = (clock::now(), now());
        Self(Arc::new(Inner { wall, zero, steps: Mutex::default() }))
    }

    /// A moment, for [`Self::since`].
    pub(crate) fn now() -> u64 {
        now()
    }

    /// A step that began at that moment ends now.
    pub(crate) fn since(&self, begun: u64, phase: Phase) {
        self.between(begun, now(), phase);
    }

    /// The time since the stopwatch was started was waiting.
    pub(crate) fn waited(&self) {
        self.since_begin(Phase::Wait);
    }

    /// A step that began with the stopwatch ends now.
    pub(crate) fn since_begin(&self, phase: Phase) {
        self.since(self.0.zero, phase);
    }

    /// Times work.
    pub(crate) fn of<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let begun = now();
        let done = work();
        self.since(begun, phase);
        done
    }

    /// Times work that waits.
    pub(crate) async fn during<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let begun = now();
        let done = work.await;
        self.since(begun, phase);
        done
    }

    /// What a monitor told of a start that was handed over at a moment.
    pub(crate) fn started(&self, handed: u64, times: &StartTimes) {
        self.between(handed, times.asked, Phase::Handover);
        self.between(times.asked, times.entered, Phase::Clone);
        self.between(times.entered, times.mounted, Phase::Mounts);
        self.between(times.mounted, times.walked, Phase::Process);
        self.between(times.walked, times.executed, Phase::Exec);
    }

    fn between(&self, begun: u64, ended: u64, phase: Phase) {
        let after = begun.saturating_sub(self.0.zero);
        let begin = self.0.wall.saturating_add_unsigned(after);
        self.add(vec![Step { phase, begin, took: ended.saturating_sub(begun) }]);
    }

    /// Steps that somebody else timed.
    pub(crate) fn add(&self, steps: Vec<Step>) {
        self.0.steps.lock().extend(steps);
    }

    /// Everything so far, with those of these steps that began since.
    pub(crate) fn with_own(&self, steps: Vec<Step>) -> Phases {
        let own = Phases(steps).since(self.0.wall);
        Phases::of(self.steps()).and(own.0)
    }

    /// What a monitor told of a start by a handler's program, that was handed over at a moment.
    pub(crate) fn started_by(&self, handed: u64, times: &StartTimes) {
        self.between(handed, times.asked, Phase::Handover);
        self.between(times.asked, times.walked, Phase::HandlerCreate);
        self.between(times.walked, times.executed, Phase::HandlerStart);
    }

    /// Everything so far.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.0.steps.lock().clone()
    }
}

/// Nanoseconds of the clock that never goes back; monitors read the same.
fn now() -> u64 {
    u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Timing, now};
    use shim_model::phases::{Phase, Phases, Step};
    use shim_model::wire::StartTimes;

    #[test]
    fn steps_have_a_beginning_and_an_end() {
        let timing = Timing::begin();
        timing.waited();
        let value = timing.of(Phase::Root, || {
            std::thread::sleep(std::time::Duration::from_millis(2));
            7
        });
        assert_eq!(value, 7);
        let handed = now();
        let moment = |more: u64| handed + more;
        let times = StartTimes {
            asked: moment(10),
            entered: moment(30),
            mounted: moment(60),
            walked: moment(100),
            executed: moment(150),
        };
        timing.started(handed, &times);
        let phases = Phases::of(timing.steps());
        let took: Vec<u64> = phases.0.iter().skip(2).map(|step| step.took).collect();
        assert_eq!(took, [10, 20, 30, 40, 50]);
        assert!(phases.0[1].took >= 2_000_000 && phases.whole() >= 2_000_150);
        let by = Timing::begin();
        by.started_by(handed, &times);
        let took: Vec<u64> = by.steps().iter().map(|step| step.took).collect();
        assert_eq!(took, [10, 90, 50]);
    }

    #[test]
    fn whoever_joins_has_the_steps_since_then() {
        let timing = Timing::begin();
        let step = |begin| Step { phase: Phase::PullLayers, begin, took: 1 };
        let (before, since) = (step(timing.0.wall - 1), step(timing.0.wall + 1));
        timing.since_begin(Phase::Pull);
        let all = timing.with_own(vec![before, since.clone()]);
        assert_eq!((all.0[0].phase.clone(), &all.0[1..]), (Phase::Pull, &[since][..]));
    }
}
