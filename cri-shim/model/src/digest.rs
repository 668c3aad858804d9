//! Content digests: four types that must not be mixed up. Grammar of the OCI image specification
//! ("Digests"): only `sha256:` with 64 lower-case hexadecimal characters is accepted; `sha512` is
//! refused by name, because no registry we support serves it.

use crate::kind::Refused;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! digest_type {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The digest with these 32 bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(format!("sha256:{}", data_encoding::HEXLOWER.encode(&bytes)))
            }

            /// Accepts `sha256:` and 64 lower-case hexadecimal characters.
            pub fn parse(text: &str) -> Result<Self, Refused> {
                parse(text).map(Self)
            }

            /// `sha256:HEX`.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The 64 characters after the colon: a safe file name.
            pub fn hex(&self) -> &str {
                self.0.get("sha256:".len()..).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Refused;
            fn try_from(text: String) -> Result<Self, Refused> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.0
            }
        }
    };
}

digest_type!(
    BlobDigest,
    "Digest of bytes as a registry serves them: manifest, config, compressed layer."
);
digest_type!(DiffId, "Digest of a layer's uncompressed tar stream.");
digest_type!(
    ChainId,
    "Identity of a layer on top of its parents (OCI image specification, \"Layer ChainID\")."
);
digest_type!(ImageId, "Identity of an image: the digest of its config blob, as CRI shows it.");

fn parse(text: &str) -> Result<String, Refused> {
    let allowed = "sha256: and 64 lower-case hexadecimal characters";
    let hex = text.strip_prefix("sha256:").ok_or_else(|| Refused::new("digest", text, allowed))?;
    let legal =
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if legal { Ok(text.to_owned()) } else { Err(Refused::new("digest", text, allowed)) }
}

impl ChainId {
    /// The chain of the first layer is its diff id.
    pub fn first(diff: &DiffId) -> Self {
        Self(diff.0.clone())
    }

    /// `sha256(parent + " " + diff)`.
    #[must_use]
    pub fn then(&self, diff: &DiffId) -> Self {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(format!("{} {}", self.0, diff.0));
        Self(format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::{BlobDigest, ChainId, DiffId};

    #[test]
    fn only_lower_case_sha256_parses() {
        let hex = "0".repeat(64);
        assert!(BlobDigest::parse(&format!("sha256:{hex}")).is_ok());
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:../../x",
            &format!("sha256:{}", "A".repeat(64)),
            &hex,
        ] {
            assert!(BlobDigest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_depends_on_order() {
        let (a, b) = (DiffId::from_bytes([1; 32]), DiffId::from_bytes([2; 32]));
        assert_ne!(ChainId::first(&a).then(&b), ChainId::first(&b).then(&a));
        assert_eq!(ChainId::first(&a).as_str(), a.as_str());
    }
}
