//! What happens when something dies or is full: the daemon, a monitor, the zygote, the machine, a disk.
//! Nothing is lost, nobody else notices, nothing is left behind. Every fault is a real one (`kill -9`, a
//! full tmpfs); where the moment matters, many are tried, more with `WHERRY_REPEAT`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

mod daemon;
mod disks;
mod moments;
mod monitors;
mod pulls;
mod reboot;
