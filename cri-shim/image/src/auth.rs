//! Credentials: what a pull brings, what an `auth.json` holds, and what a challenge asks for. A
//! credential belongs to one registry host and is never written to a log: its `Debug` says nothing.

use crate::error::ImageError;
use serde::{Deserialize, Serialize};
use shim_model::kind::Refused;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What one pull may present.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Auth {
    /// Nothing.
    #[default]
    Anonymous,
    /// User and password, for Basic and for a token service.
    Basic { user: String, password: String },
    /// A token to present as it is.
    Bearer(String),
    /// A refresh token for the token service.
    Identity(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
            Self::Identity(_) => "Identity(…)",
        })
    }
}

impl Auth {
    /// From the fields of the CRI's `AuthConfig`; the first that is set counts.
    pub fn from_parts(
        user: &str,
        password: &str,
        auth: &str,
        identity: &str,
        registry: &str,
    ) -> Result<Self, Refused> {
        if !registry.is_empty() {
            return Ok(Self::Bearer(registry.to_owned()));
        }
        if !identity.is_empty() {
            return Ok(Self::Identity(identity.to_owned()));
        }
        if !user.is_empty() || !password.is_empty() {
            return Ok(Self::Basic { user: user.to_owned(), password: password.to_owned() });
        }
        if auth.trim().is_empty() {
            return Ok(Self::Anonymous);
        }
        // Not told as it was found: it is a secret, if a broken one.
        let refuse = || Refused::new("auth", "other text", "base64 of user:password");
        Self::from_encoded(auth).ok_or_else(refuse)
    }

    /// From base64 of `user:password`.
    fn from_encoded(auth: &str) -> Option<Self> {
        let bytes = data_encoding::BASE64.decode(auth.trim().as_bytes()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }
}

/// Whether credentials that name a server (`AuthConfig.server_address`) are for this registry; without a
/// name they are for whatever is pulled.
pub fn are_for(server: &str, host: &str) -> bool {
    server.is_empty() || host_key(server).split('/').next() == Some(host)
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity: String,
}

/// The entry of an `auth.json` (Docker's and podman's form) for a repository: the longest key that
/// is the repository, a prefix of it at a slash, or its host. No file is no credential.
pub fn from_file(path: &Path, repository: &str) -> Result<Auth, ImageError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Auth::Anonymous),
        Err(error) => return Err(ImageError::file("read", path)(error)),
    };
    let file: AuthFile = serde_json::from_slice(&text)
        .map_err(|source| ImageError::Json { what: path.display().to_string(), source })?;
    let fits = |key: &str| {
        let rest = repository.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let best = file
        .auths
        .iter()
        .map(|(key, entry)| (host_key(key), entry))
        .filter(|(key, _)| fits(key))
        .max_by_key(|(key, _)| key.len());
    let Some((_, e)) = best else { return Ok(Auth::Anonymous) };
    Ok(Auth::from_parts(&e.username, &e.password, &e.auth, &e.identity, "")?)
}

/// `https://index.docker.io/v1/` is how Docker spells its own hub.
fn host_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    match key {
        "index.docker.io/v1" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Auth, are_for, from_file};

    #[test]
    fn the_longest_fitting_key_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let encoded = data_encoding::BASE64.encode(b"u:p:w");
        std::fs::write(&path, format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{encoded}"}},"r.io":{{"username":"a","password":"b"}},"r.io/team":{{"identitytoken":"t"}}}}}}"#)).unwrap();
        let of = |repository: &str| from_file(&path, repository).unwrap();
        assert_eq!(
            of("docker.io/library/nginx"),
            Auth::Basic { user: "u".into(), password: "p:w".into() }
        );
        assert_eq!(of("r.io/team/app"), Auth::Identity("t".into()));
        assert_eq!(of("r.io/teamother"), Auth::Basic { user: "a".into(), password: "b".into() });
        assert_eq!(of("evil-r.io/x"), Auth::Anonymous);
    }

    #[test]
    fn a_credential_is_never_printed() {
        assert!(!format!("{:?}", Auth::Bearer("secret".into())).contains("secret"));
        let broken = Auth::from_parts("", "", "not base64 of secret", "", "").unwrap_err();
        assert!(!format!("{broken:?} {broken}").contains("secret"));
    }

    #[test]
    fn the_strongest_field_of_an_auth_config_counts() {
        let encoded = data_encoding::BASE64.encode(b"u:p");
        let of = |parts: [&str; 5]| {
            let [user, password, auth, identity, registry] = parts;
            Auth::from_parts(user, password, auth, identity, registry).unwrap()
        };
        let basic = |user: &str, password: &str| Auth::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        assert_eq!(of(["", "", "", "", ""]), Auth::Anonymous);
        assert_eq!(of(["", "", &encoded, "", ""]), basic("u", "p"));
        assert_eq!(of(["a", "b", &encoded, "", ""]), basic("a", "b"));
        assert_eq!(of(["a", "b", "", "i", ""]), Auth::Identity("i".into()));
        assert_eq!(of(["a", "b", "", "i", "r"]), Auth::Bearer("r".into()));
    }

    #[test]
    fn credentials_that_name_a_server_are_for_no_other() {
        for (server, host, own) in [
            ("", "r.io", true),
            ("r.io", "r.io", true),
            ("https://r.io/v1/", "r.io", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("r.io:5000", "r.io:5000", true),
            ("r.io", "r.io:5000", false),
            ("https://r.io", "docker.io", false),
        ] {
            assert_eq!(are_for(server, host), own, "{server} {host}");
        }
    }
}
