//! When a failed request is tried again and how long to wait first. Pure: failure, header and a random byte
//! go in, a pause comes out; nobody sleeps here.

use crate::error::ImageError;
use shim_model::limits;
use std::time::Duration;

/// Failures that another try may cure: no connection, a busy server, one that is broken for the moment.
pub const fn may_pass(failure: &ImageError) -> bool {
    matches!(
        failure,
        ImageError::Unavailable { .. } | ImageError::Status { status: 408 | 425 | 429, .. }
    )
}

/// The wait before try number `next` (1 = the first repeat): 0.2 s doubling, spread by `spread`
/// (0 to 255) so that many clients do not come back at once.
pub fn pause(next: u32, spread: u8) -> Duration {
    let base = 200u64.saturating_mul(1 << next.saturating_sub(1).min(6));
    let extra = base.saturating_mul(u64::from(spread)) / 512;
    Duration::from_millis(base.saturating_add(extra)).min(limits::REGISTRY_WAIT)
}

/// The wait that `Retry-After` asks for: seconds, or a date measured from `now` (seconds since the
/// epoch). Nonsense is no wish; more than half a minute is cut.
pub fn asked(header: &str, now: u64) -> Option<Duration> {
    let date = || {
        httpdate::parse_http_date(header.trim()).ok()?.duration_since(std::time::UNIX_EPOCH).ok()
    };
    let seconds = match header.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_not_a_number) => date()?.as_secs().saturating_sub(now),
    };
    Some(Duration::from_secs(seconds).min(limits::REGISTRY_WAIT))
}

#[cfg(test)]
mod tests {
    use super::{asked, pause};
    use std::time::Duration;

    #[test]
    fn waits_grow_and_are_bounded() {
        assert!(pause(1, 0) < pause(2, 0) && pause(60, 255) <= Duration::from_secs(30));
    }

    #[test]
    fn a_registrys_wish_is_kept_within_reason() {
        assert_eq!(asked("3", 0), Some(Duration::from_secs(3)));
        assert_eq!(asked("99999999999", 0), Some(Duration::from_secs(30)));
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:10 GMT", 4), Some(Duration::from_secs(6)));
        assert_eq!(asked("soon", 0), None);
    }
}
