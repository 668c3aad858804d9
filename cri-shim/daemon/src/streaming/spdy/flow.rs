//! Credit for clients that count windows (SPDY/3.1 §2.6.8). Pure. moby/spdystream, which nearly every
//! client uses, neither sends nor obeys `WINDOW_UPDATE`, and a queue of frames it does not know could stop
//! its reader; so nothing is granted until a client shows by a frame of its own that it counts. We never
//! wait for credit: such a client would wait for ever (`cri-contract.md` 4.4).

use std::collections::HashMap;

/// Half of the window that the specification begins with: a client that was granted each half it used
/// never stops.
const GRANT: u32 = 32 << 10;

/// What a client used and was not granted again.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    counts: bool,
    /// Stream 0 is the connection.
    used: HashMap<u32, u32>,
}

impl Credit {
    /// The client knows about windows. What it used before is granted with the next data.
    pub(crate) fn client_counts(&mut self) {
        self.counts = true;
    }

    /// Data of a stream went to its reader: what to grant now, as (stream, octets).
    pub(crate) fn used(&mut self, stream: u32, octets: usize) -> [Option<(u32, u32)>; 2] {
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        [stream, 0].map(|stream| self.count(stream, octets).map(|granted| (stream, granted)))
    }

    fn count(&mut self, stream: u32, octets: u32) -> Option<u32> {
        let used = self.used.entry(stream).or_default();
        *used = used.saturating_add(octets);
        if !self.counts || *used < GRANT {
            return None;
        }
        // A window and what is granted at once have 31 bits.
        let granted = (*used).min(0x7fff_ffff);
        *used = used.saturating_sub(granted);
        Some(granted)
    }

    /// A stream's client ended it: nothing more to grant.
    pub(crate) fn ended(&mut self, stream: u32) {
        self.used.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;

    #[test]
    fn a_client_that_does_not_count_is_told_nothing() {
        let mut credit = Credit::default();
        for _ in 0..1_000 {
            assert_eq!(credit.used(1, 64 << 10), [None, None]);
        }
    }

    #[test]
    fn a_client_that_counts_can_go_on_for_ever() {
        let mut credit = Credit::default();
        // What it sent before we knew is granted too: its window may be used up.
        assert_eq!(credit.used(1, 60 << 10), [None, None]);
        credit.client_counts();
        let (mut stream, mut connection) = (4i64 << 10, 4i64 << 10);
        for _ in 0..1_000 {
            let sent = stream.min(connection).min(10_000);
            assert!(sent > 0, "the client waits for ever");
            let [own, all] = credit.used(1, usize::try_from(sent).unwrap());
            stream += own.map_or(0, |(id, n)| {
                assert_eq!(id, 1);
                i64::from(n)
            }) - sent;
            connection += all.map_or(0, |(id, n)| {
                assert_eq!(id, 0);
                i64::from(n)
            }) - sent;
            assert!(stream <= 64 << 10 && connection <= 64 << 10);
        }
    }

    #[test]
    fn ended_streams_are_forgotten() {
        let mut credit = Credit::default();
        for stream in (1..2_001).step_by(2) {
            credit.used(stream, 1);
            credit.ended(stream);
        }
        assert_eq!(credit.used.len(), 1);
    }
}
