//! Tokens of streaming URLs: one request each, once, for a minute, and not many at a time. Pure but for
//! the randomness, which comes in; so does the time. A token is 256 random bits: whoever knows it may run
//! the command, and any process of the node can ask the server.

use super::session::Streams;
use data_encoding::BASE64URL_NOPAD;
use shim_model::limits;
use std::collections::HashMap;
use std::collections::VecDeque;
use tokio::time::Instant;

/// What a URL stands for: the RPC's request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Exec { container: String, command: Vec<String>, streams: Streams },
    Attach { container: String, streams: Streams },
    Forward { sandbox: String, ports: Vec<u16> },
}

impl Ask {
    /// The first part of the URL's path.
    pub(crate) const fn path(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::Forward { .. } => "portforward",
        }
    }

    /// The container or pod that it works on.
    pub(crate) fn object(&self) -> &str {
        match self {
            Self::Exec { container, .. } | Self::Attach { container, .. } => container,
            Self::Forward { sandbox, .. } => sandbox,
        }
    }
}

/// Requests that wait for their client.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    waiting: HashMap<String, (Instant, Ask)>,
    /// The same tokens, oldest first; a used one stays until its time.
    by_age: VecDeque<(Instant, String)>,
}

impl Tokens {
    /// Keeps a request under a new token; `None` = too many wait.
    pub(crate) fn keep(&mut self, ask: Ask, random: [u8; 32], now: Instant) -> Option<String> {
        self.forget_old(now);
        if self.waiting.len() >= limits::STREAM_TOKENS {
            return None;
        }
        // Used tokens behind one that waits: gone before they outnumber what may wait.
        if self.by_age.len() >= limits::STREAM_TOKENS.saturating_mul(2) {
            self.by_age.retain(|(_, token)| self.waiting.contains_key(token));
        }
        let token = BASE64URL_NOPAD.encode(&random);
        let until = now.checked_add(limits::STREAM_TOKEN)?;
        self.by_age.push_back((until, token.clone()));
        self.waiting.insert(token.clone(), (until, ask));
        Some(token)
    }

    /// Gives a token's request out, once; `path` must be that of the request's kind.
    pub(crate) fn take(&mut self, path: &str, token: &str, now: Instant) -> Option<Ask> {
        self.forget_old(now);
        let (until, ask) = self.waiting.remove(token)?;
        (ask.path() == path && now < until).then_some(ask)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((until, token)) = self.by_age.front() {
            // Used ones at the front go too, whatever their age.
            if now < *until && self.waiting.contains_key(token) {
                return;
            }
            self.waiting.remove(token);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ask, Tokens};
    use shim_model::limits;
    use std::time::Duration;
    use tokio::time::Instant;

    fn ask() -> Ask {
        Ask::Forward { sandbox: "s".to_owned(), ports: Vec::new() }
    }

    fn random(n: u16) -> [u8; 32] {
        let mut random = [7; 32];
        random[..2].copy_from_slice(&n.to_be_bytes());
        random
    }

    #[test]
    fn a_token_is_good_once_for_its_kind_and_its_minute() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let keep = |tokens: &mut Tokens, n| tokens.keep(ask(), random(n), now).unwrap();
        let token = keep(&mut tokens, 1);
        assert!(
            token.len() == 43 && token.chars().all(|c| c.is_alphanumeric() || "-_".contains(c))
        );
        assert_eq!(tokens.take("portforward", &token, now), Some(ask()));
        assert_eq!(tokens.take("portforward", &token, now), None);
        let token = keep(&mut tokens, 2);
        assert_eq!(tokens.take("exec", &token, now), None);
        assert_eq!(tokens.take("portforward", &token, now), None, "a wrong guess used it");
        for (after, good) in [(59_999, true), (60_000, false), (60_001, false)] {
            let token = keep(&mut tokens, 3);
            let then = now + Duration::from_millis(after);
            assert_eq!(tokens.take("portforward", &token, then).is_some(), good, "{after}");
        }
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let many = u16::try_from(limits::STREAM_TOKENS).unwrap();
        let kept: Vec<_> = (0..many).map(|n| tokens.keep(ask(), random(n), now).unwrap()).collect();
        assert_eq!(tokens.keep(ask(), random(many), now), None);
        assert!(tokens.take("portforward", &kept[500], now).is_some());
        assert!(tokens.keep(ask(), random(many), now).is_some());
        let later = now + limits::STREAM_TOKEN;
        assert!(tokens.keep(ask(), random(many + 1), later).is_some());
        assert_eq!((tokens.waiting.len(), tokens.by_age.len()), (1, 1));
    }

    #[test]
    fn a_busy_client_leaves_nothing_behind() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let waits = tokens.keep(ask(), random(u16::MAX), now).unwrap();
        for n in 0..20_000u16 {
            let token = tokens.keep(ask(), random(n), now).unwrap();
            tokens.take("portforward", &token, now).unwrap();
            assert!(tokens.by_age.len() <= 2 * limits::STREAM_TOKENS);
        }
        assert!(tokens.take("portforward", &waits, now).is_some());
        assert_eq!(tokens.waiting.len(), 0);
    }
}
