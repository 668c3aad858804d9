//! Image names: what people type to one canonical form (`host/path:tag`, `host/path@digest`). Grammar
//! of the distribution project's reference format. A digest wins where both are given. Pure.

use serde::{Deserialize, Serialize};
use shim_model::digest::BlobDigest;
use shim_model::kind::Refused;
use std::fmt;

/// Host of names without one.
const DOCKER: &str = "docker.io";

/// A name in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// `registry.example:5000`.
    pub host: String,
    /// `library/nginx`.
    pub path: String,
    /// What it names there.
    pub what: What,
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum What {
    /// May change.
    Tag(String),
    /// Never changes.
    Digest(BlobDigest),
}

impl Reference {
    /// Reads a name: `nginx`, `nginx:1.27`, `host:5000/a/b@sha256:…`. No tag means `latest`.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refuse = || {
            Refused::new("image", text, "[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST] in lower case")
        };
        if text.len() > 512 {
            return Err(refuse());
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(BlobDigest::parse(digest)?)),
            None => (text, None),
        };
        let (host, rest) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (DOCKER, name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let host = if host == "index.docker.io" { DOCKER } else { host };
        let path = if host == DOCKER && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let legal = legal_host(host)
            && path.len() <= 255
            && path.split('/').all(legal_component)
            && tag.is_none_or(legal_tag);
        if !legal {
            return Err(refuse());
        }
        let what = match (digest, tag) {
            (Some(digest), _) => What::Digest(digest),
            (None, tag) => What::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { host: host.to_owned(), path, what })
    }

    /// `host/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// What comes after `/manifests/`.
    pub fn manifest(&self) -> &str {
        match &self.what {
            What::Tag(tag) => tag,
            What::Digest(digest) => digest.as_str(),
        }
    }

    /// The digest, if it names one.
    pub fn digest(&self) -> Option<&BlobDigest> {
        match &self.what {
            What::Tag(_) => None,
            What::Digest(digest) => Some(digest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Tag(tag) => write!(f, "{}/{}:{tag}", self.host, self.path),
            What::Digest(digest) => write!(f, "{}/{}@{digest}", self.host, self.path),
        }
    }
}

/// A first component is a host if it could be nothing else.
fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.starts_with('[')
}

fn legal_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let name_ok = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.split('.').all(|part| {
                    !part.is_empty()
                        && !part.starts_with('-')
                        && !part.ends_with('-')
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        }
    };
    port_ok && name_ok
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn legal_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    let doubled =
        part.contains("..") || part.contains("___") || part.contains("._") || part.contains("_.");
    ends && !doubled && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn legal_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && tag.len() <= 128
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::Reference;

    fn canonical(text: &str) -> String {
        Reference::parse(text).map_or_else(|_| "refused".to_owned(), |r| r.to_string())
    }

    #[test]
    fn short_names_are_docker_hubs() {
        assert_eq!(canonical("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(canonical("index.docker.io/a/b:1"), "docker.io/a/b:1");
        assert_eq!(canonical("localhost/x"), "localhost/x:latest");
        assert_eq!(canonical("127.0.0.1:5000/a/b"), "127.0.0.1:5000/a/b:latest");
        assert_eq!(canonical("[::1]:5000/a"), "[::1]:5000/a:latest");
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(canonical(&format!("a/b:1@{digest}")), format!("docker.io/a/b@{digest}"));
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "UPPER",
            "a:b:c",
            "a/../b",
            "host:0/a",
            "host:99999/a",
            "u:p@host/a",
            "a b",
            "host.io/",
            "a@sha256:1",
            &"a".repeat(600),
            "ex\u{e4}mple.io/a",
            "-x",
            "x:",
        ] {
            assert_eq!(canonical(bad), "refused", "{bad}");
        }
    }
}
