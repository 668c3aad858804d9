//! Keys that leave a terminal session without ending it: `ctrl-p,ctrl-q` unless told otherwise. What could
//! be their beginning is held back until the next key decides. Pure.

use super::failure::CliError;

/// The keys, and how many of them were just typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    wanted: Vec<u8>,
    typed: usize,
}

/// What becomes of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These go on.
    On(Vec<u8>),
    /// These go on, then the client leaves.
    Leave(Vec<u8>),
}

impl Keys {
    /// Reads `ctrl-p,ctrl-q`, `a,b`: single characters, or ctrl- with a letter or one of `@[\]^_`. Empty =
    /// no keys leave.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let keys = text.split(',').filter(|_| !text.is_empty()).map(key);
        let wanted = keys.collect::<Option<Vec<u8>>>().ok_or_else(|| {
            CliError::new(format!(
                "--detach-keys {text}: allowed are keys with commas between them, such as ctrl-p,ctrl-q"
            ))
        })?;
        Ok(Self { wanted, typed: 0 })
    }

    /// Takes what was typed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut on = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.wanted.get(self.typed) == Some(byte) {
                self.typed = self.typed.saturating_add(1);
                if self.typed == self.wanted.len() {
                    return Typed::Leave(on);
                }
                continue;
            }
            // It was no beginning, and this one may be.
            on.extend_from_slice(self.wanted.get(..self.typed).unwrap_or_default());
            self.typed = usize::from(self.wanted.first() == Some(byte));
            if self.typed == 0 {
                on.push(*byte);
            } else if self.wanted.len() == 1 {
                return Typed::Leave(on);
            }
        }
        Typed::On(on)
    }
}

fn key(name: &str) -> Option<u8> {
    match *name.as_bytes() {
        [only] if only.is_ascii() => Some(only),
        [b'c', b't', b'r', b'l', b'-', with] => {
            let upper = with.to_ascii_uppercase();
            (b'@'..=b'_').contains(&upper).then_some(upper ^ 0x40)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Keys, Typed};

    fn typed(keys: &mut Keys, bytes: &[u8]) -> (Vec<u8>, bool) {
        match keys.take(bytes) {
            Typed::On(on) => (on, false),
            Typed::Leave(on) => (on, true),
        }
    }

    #[test]
    fn the_keys_leave_and_everything_else_goes_on() {
        let mut keys = Keys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(typed(&mut keys, b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x10x"), (b"\x10\x10x".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x11\x10"), (b"\x11".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x11z"), (vec![], true));
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        for (text, wanted) in [
            ("ctrl-p,ctrl-q", vec![0x10, 0x11]),
            ("a,ctrl-@,ctrl-]", vec![b'a', 0, 0x1d]),
            ("", vec![]),
        ] {
            assert_eq!(Keys::parse(text).unwrap(), Keys { wanted, typed: 0 });
        }
        for text in ["ctrl-", "ctrl-1", "ab", "a,", "é"] {
            assert!(Keys::parse(text).is_err(), "{text}");
        }
        let mut one = Keys::parse("x").unwrap();
        assert_eq!(typed(&mut one, b"abx"), (b"ab".to_vec(), true));
        let mut none = Keys::parse("").unwrap();
        assert_eq!(typed(&mut none, b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
