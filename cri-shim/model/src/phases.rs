//! How long each step of making a pod, or of making and starting a container, took. One record, kept with
//! the thing's state: it is shown in verbose statuses, counted in histograms and told as spans. Reading
//! clocks is the hands' business.

use crate::wire::Nanos;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Until its turn came: a lock, a thread, an earlier call for the same name.
    Wait,
    /// Of a pod: its record and name.
    Record,
    /// A network namespace, made or taken from those made ahead.
    Namespace,
    /// Until its turn to attach to a network came.
    NetworkWait,
    /// One plugin of the chain, run or done in process.
    Plugin(String),
    /// The zygote forks the pod's monitor.
    Fork,
    /// The monitor makes the pod's namespaces, its shared memory, its first process.
    Setup,
    /// Hosts, hostname, resolv.conf.
    Files,
    /// Of a container: its image was pulled for this pod. The whole of it; its parts follow.
    Pull,
    /// Until the pull's turn came, in a worker that runs.
    PullWait,
    /// From a name to a manifest and a config: the registry's answers.
    PullResolve,
    /// The layers that were missing, downloaded and unpacked side by side.
    PullLayers,
    /// They are flushed to the disk and made visible.
    PullPublish,
    /// The image was looked up.
    Image,
    /// The pod's user namespace is borrowed from its monitor.
    UserNamespace,
    /// Its writable layer and root.
    Root,
    /// User, spec, filter and plan; at a start, reading the plan again.
    Plan,
    /// Plugins of NRI were asked.
    Nri,
    /// Its log file.
    Log,
    /// Its group with limits.
    Cgroup,
    /// The trees that its mounts come from.
    Sources,
    /// Until the monitor had its order.
    Handover,
    /// From the order to a clone that is written down.
    Clone,
    /// The mount chapter of its plan, to the pivot.
    Mounts,
    /// Limits, credentials and the rest of its plan.
    Process,
    /// The filter and the program, until it is executed.
    Exec,
    /// Instead of the four before, where another runtime runs the container: it makes the process.
    HandlerCreate,
    /// And lets it execute its program.
    HandlerStart,
}

impl Phase {
    /// One word for all of a kind.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Record => "record",
            Self::Namespace => "namespace",
            Self::NetworkWait => "network_wait",
            Self::Plugin(_) => "plugin",
            Self::Fork => "fork",
            Self::Setup => "setup",
            Self::Files => "files",
            Self::Pull => "pull",
            Self::PullWait => "pull_wait",
            Self::PullResolve => "pull_resolve",
            Self::PullLayers => "pull_layers",
            Self::PullPublish => "pull_publish",
            Self::Image => "image",
            Self::UserNamespace => "user_namespace",
            Self::Root => "root",
            Self::Plan => "plan",
            Self::Nri => "nri",
            Self::Log => "log",
            Self::Cgroup => "cgroup",
            Self::Sources => "sources",
            Self::Handover => "handover",
            Self::Clone => "clone",
            Self::Mounts => "mounts",
            Self::Process => "process",
            Self::Exec => "exec",
            Self::HandlerCreate => "handler_create",
            Self::HandlerStart => "handler_start",
        }
    }

    /// It is a pull, or part of one.
    pub const fn is_pull(&self) -> bool {
        matches!(
            self,
            Self::Pull | Self::PullWait | Self::PullResolve | Self::PullLayers | Self::PullPublish
        )
    }

    /// Which plugin, where it is one.
    pub fn plugin(&self) -> &str {
        if let Self::Plugin(name) = self { name } else { "" }
    }

    /// As people read it: `plugin bridge`.
    pub fn shown(&self) -> Cow<'static, str> {
        match self {
            Self::Plugin(name) => format!("plugin {name}").into(),
            other => other.word().into(),
        }
    }
}

/// A step with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub phase: Phase,
    /// When it began.
    pub begin: Nanos,
    /// How long it took, nanoseconds.
    pub took: u64,
}

impl Step {
    fn end(&self) -> Nanos {
        self.begin.saturating_add_unsigned(self.took)
    }
}

/// The steps in the order in which they began; some ran side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases(pub Vec<Step>);

impl Phases {
    /// Steps in any order.
    pub fn of(mut steps: Vec<Step>) -> Self {
        steps.sort_by_key(|step| step.begin);
        Self(steps)
    }

    /// These and later ones.
    #[must_use]
    pub fn and(&self, later: Vec<Step>) -> Self {
        Self::of(self.0.iter().cloned().chain(later).collect())
    }

    /// Those that began at this time or later.
    #[must_use]
    pub fn since(&self, begin: Nanos) -> Self {
        Self(self.0.iter().filter(|step| step.begin >= begin).cloned().collect())
    }

    /// The steps of what was made since this time, without the pull before it, which is told with the
    /// pull's own call; none of what was in the making already: whoever began it is told.
    #[must_use]
    pub fn made_since(&self, begin: Nanos) -> Self {
        let own = || self.0.iter().filter(|step| !step.phase.is_pull());
        if own().any(|step| step.begin < begin) {
            return Self::default();
        }
        Self(own().cloned().collect())
    }

    /// How long at least one step was at work, nanoseconds.
    pub fn work(&self) -> u64 {
        let (mut until, mut all) = (Nanos::MIN, 0_u64);
        for step in &self.0 {
            let begin = step.begin.max(until);
            let more = step.end().saturating_sub(begin);
            all = all.saturating_add(u64::try_from(more).unwrap_or_default());
            until = until.max(step.end());
        }
        all
    }

    /// From the first beginning to the last end, nanoseconds: also what passed between two calls.
    pub fn whole(&self) -> u64 {
        let begin = self.0.iter().map(|step| step.begin).min().unwrap_or_default();
        let end = self.0.iter().map(Step::end).max().unwrap_or_default();
        u64::try_from(end.saturating_sub(begin)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Phases, Step};

    fn step(phase: Phase, begin: i64, took: u64) -> Step {
        Step { phase, begin, took }
    }

    #[test]
    fn steps_are_in_order_and_the_whole_is_from_first_to_last() {
        let first = Phases::of(vec![step(Phase::Fork, 20, 5), step(Phase::Namespace, 10, 30)]);
        assert_eq!(first.0[0].phase, Phase::Namespace);
        assert_eq!(first.whole(), 30);
        let all = first.and(vec![step(Phase::Plugin("bridge".into()), 50, 7)]);
        assert_eq!((all.0.len(), all.whole()), (3, 47));
        assert_eq!(all.since(20).0.len(), 2);
        assert_eq!(all.0[2].phase.shown(), "plugin bridge");
        assert_eq!((first.work(), all.work()), (30, 37));
        assert_eq!((Phases::default().whole(), Phases::default().work()), (0, 0));
    }

    #[test]
    fn a_making_is_told_once_and_without_the_pull_before_it() {
        let made = Phases::of(vec![step(Phase::Pull, 1, 5), step(Phase::Wait, 10, 1)]);
        assert_eq!(made.made_since(10), Phases(vec![step(Phase::Wait, 10, 1)]));
        assert_eq!(made.made_since(11), Phases::default());
    }
}
