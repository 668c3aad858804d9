//! Looking in from outside: logs. Metrics and traces come with their own release.

pub(crate) mod logs;
