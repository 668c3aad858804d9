//! What a caller can do about a failure: eight kinds, named after the reaction. Each crate's error
//! answers `kind()`; the daemon's `rpc/status.rs` is the one place that turns a kind into a code.

/// What the receiver of an error can do about it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Kind {
    /// The object does not exist.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// The request can never succeed as it is.
    BadArgument,
    /// The object is not in a state that allows this.
    WrongState,
    /// The same request may succeed later.
    TryAgain,
    /// A deadline passed before the work was done.
    TooSlow,
    /// A bound, a quota or a disk is full.
    NoRoom,
    /// This build or this host cannot do it.
    Unsupported,
    /// Our own failure, or the kernel's.
    Internal,
}

/// A refused field of a request: where it is, what was found, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: found {found}, allowed is {allowed}")]
pub struct Refused {
    /// Path of the field, as the protocol spells it: `config.linux.resources.cpu_period`.
    pub field: String,
    /// What the request held, shortened to 200 characters.
    pub found: String,
    /// What would have been accepted.
    pub allowed: String,
}

impl Refused {
    /// Makes a refusal; `found` is escaped and shortened, so that hostile text is safe to print.
    pub fn new(
        field: impl Into<String>,
        found: impl AsRef<str>,
        allowed: impl Into<String>,
    ) -> Self {
        let text: String =
            found.as_ref().chars().take(200).flat_map(char::escape_default).collect();
        Self { field: field.into(), found: format!("\"{text}\""), allowed: allowed.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::Refused;

    #[test]
    fn hostile_text_is_escaped_and_shortened() {
        let refused =
            Refused::new("metadata.name", format!("a\n\u{1b}[31m{}", "x".repeat(500)), "a name");
        assert!(refused.found.starts_with("\"a\\n\\u{1b}[31m"));
        assert!(refused.found.len() < 230);
    }
}
