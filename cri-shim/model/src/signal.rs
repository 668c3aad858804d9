//! Stop signals: names and numbers of images and of the CRI to Linux signal numbers (x86-64 and
//! arm64 share them; signal(7)). Real-time signals are counted from SIGRTMIN = 34, as glibc does.

use crate::kind::Refused;
use serde::{Deserialize, Serialize};

/// A Linux signal number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(u8);

/// Number and name of every standard signal.
const NAMES: [(u8, &str); 34] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (6, "IOT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (17, "CLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (29, "POLL"),
    (30, "PWR"),
    (31, "SYS"),
];
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// SIGTERM, what a container gets if nobody says otherwise.
    pub const TERM: Self = Self(15);
    /// SIGKILL.
    pub const KILL: Self = Self(9);

    /// The number for kill(2).
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// Reads `SIGQUIT`, `quit`, `3`, `RTMIN+3` or `RTMAX-1`.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refuse = || {
            Refused::new(
                "stop_signal",
                text,
                "a signal name such as SIGTERM or RTMIN+3, or a number from 1 to 64",
            )
        };
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=RTMAX).contains(&number) { Ok(Self(number)) } else { Err(refuse()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((number, _)) = NAMES.iter().find(|(_, known)| *known == name) {
            return Ok(Self(*number));
        }
        real_time(name).map(Self).ok_or_else(refuse)
    }
}

fn real_time(name: &str) -> Option<u8> {
    let number = match name {
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(offset), _) => RTMIN.checked_add(offset.parse().ok()?)?,
            (None, Some(offset)) => RTMAX.checked_sub(offset.parse().ok()?)?,
            (None, None) => return None,
        },
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn names_numbers_and_real_time_signals_parse() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("WINCH", 28),
        ] {
            assert_eq!(Signal::parse(text).map(Signal::number), Ok(number), "{text}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "0", "65", "999", "-1", "SIGFOO", "RTMIN+31", "RTMAX-31", "TERM "] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }
}
