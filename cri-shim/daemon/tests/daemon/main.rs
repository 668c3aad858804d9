//! The real daemon over its socket: what its clients rely on, and what nobody sane sends. Needs root,
//! because the daemon does. Pods and images are tested by the suites at the repository's root.

#![expect(clippy::print_stderr, reason = "a test that cannot run here says so aloud")]

mod hostile;
mod running;
mod socket;
