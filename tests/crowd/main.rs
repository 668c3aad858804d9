//! Many at once and many after another: two hundred pods by eight clients, and lives of pods until a leak
//! would show. What is asserted are counts and bounds of growth, never a time.

#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod many;
mod soak;
