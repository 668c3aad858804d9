//! Clocks and the boot id. The only place that reads them, so that everything else takes time as a
//! value. It formats nothing and waits for nothing.

use crate::error::SysError;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Nanoseconds since the epoch (`CLOCK_REALTIME`); may step backwards.
pub fn now() -> i64 {
    let nanos = since(ClockId::CLOCK_REALTIME).as_nanos();
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// Time since an arbitrary point, never backwards (`CLOCK_MONOTONIC`, stands still in suspend).
pub fn monotonic() -> Duration {
    since(ClockId::CLOCK_MONOTONIC)
}

/// Time since boot, suspend included (`CLOCK_BOOTTIME`).
pub fn uptime() -> Duration {
    since(ClockId::CLOCK_BOOTTIME)
}

fn since(clock: ClockId) -> Duration {
    // clock_gettime(2) fails only for an unknown clock; these three exist since Linux 2.6.39.
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// The id of this boot, `/proc/sys/kernel/random/boot_id`: 36 characters.
pub fn boot_id() -> Result<String, SysError> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(path).map(|text| text.trim_end().to_owned()).map_err(|cause| {
        SysError::new("read", path, Errno::from_raw(cause.raw_os_error().unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn clocks_tell_plausible_times() {
        assert!(super::now() > 1_700_000_000_000_000_000);
        assert!(super::monotonic() <= super::uptime());
    }

    #[test]
    fn the_boot_id_is_a_uuid_and_stays() {
        let id = super::boot_id().unwrap();
        assert_eq!((id.len(), id.matches('-').count()), (36, 4));
        assert_eq!(id, super::boot_id().unwrap());
    }
}
