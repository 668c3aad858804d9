//! Looking in from outside: `logs` is what the daemon tells, `metrics` what it counts, `traces` what took
//! how long in which call, `http` the page that shows metrics. Nothing here changes anything.

pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod traces;

use shim_model::phases::Phases;

/// Tells the steps of something that was made just now, within the span of the call that made it.
pub(crate) fn made(of: &'static str, phases: &Phases) {
    metrics::phases(of, phases);
    traces::phases(phases);
}
