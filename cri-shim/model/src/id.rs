//! Ids of sandboxes and containers: 64 lower-case hexadecimal characters (`cri-contract.md` 0.9), each
//! kind a type of its own. Ids are made by the caller from random bytes; this file draws none.

use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id_type {
    ($name:ident, $doc:literal, $field:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id of 32 random bytes.
            pub fn from_random(bytes: [u8; 32]) -> Self {
                Self(data_encoding::HEXLOWER.encode(&bytes))
            }

            /// Accepts exactly 64 lower-case hexadecimal characters.
            pub fn parse(text: &str) -> Result<Self, Refused> {
                let legal = text.len() == 64
                    && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if legal {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Refused::new($field, text, "64 lower-case hexadecimal characters"))
                }
            }

            /// The whole id.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve characters, as people see it.
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl TryFrom<String> for $name {
            type Error = Refused;
            fn try_from(text: String) -> Result<Self, Refused> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id_type!(SandboxId, "The id of a pod sandbox.", "pod_sandbox_id");
id_type!(ContainerId, "The id of a container.", "container_id");

#[cfg(test)]
mod tests {
    use super::{ContainerId, SandboxId};

    #[test]
    fn random_bytes_make_a_legal_id() {
        let id = SandboxId::from_random([0xab; 32]);
        assert_eq!(SandboxId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.short(), "abababababab");
    }

    #[test]
    fn anything_but_64_hex_is_refused() {
        for text in
            ["", "abc", &"A".repeat(64), &"g".repeat(64), "../../../etc/passwd", &"a".repeat(65)]
        {
            assert!(ContainerId::parse(text).is_err(), "{text}");
        }
    }
}
