//! Where a registry's host is really asked: `certs.d/HOST/hosts.toml` in containerd's form, mirrors
//! first, the host itself last. A mirror never leaks into an image's name.

use crate::error::ImageError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One place to ask.
#[expect(clippy::struct_excessive_bools, reason = "each is one setting of hosts.toml")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host:port` plus the API's path, without a slash at the end.
    pub base: String,
    /// May resolve tags; without it, only digests are asked of it.
    pub resolve: bool,
    /// Does not check the server's certificate.
    pub skip_verify: bool,
    /// Further roots, PEM files.
    pub ca: Vec<PathBuf>,
    /// Client identities: PEM files of certificate and key (or both in one).
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Headers of every request.
    pub headers: BTreeMap<String, Vec<String>>,
    /// True for the host itself.
    pub own: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn all(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    skip_verify: Option<bool>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<toml::Value>,
    header: BTreeMap<String, OneOrMany<String>>,
    override_path: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    server: Option<String>,
    host: toml::Table,
    #[serde(flatten)]
    own: HostTable,
}

/// The places for a host, in the order to try. `config` is the `certs.d` folder.
pub fn endpoints(config: &Path, host: &str) -> Result<Vec<Endpoint>, ImageError> {
    let names = [host.replace(':', "_"), host.to_owned(), "_default".to_owned()];
    let found =
        names.iter().map(|name| config.join(name)).find(|dir| dir.join("hosts.toml").is_file());
    let Some(dir) = found else { return Ok(vec![own(host)]) };
    let path = dir.join("hosts.toml");
    let text = std::fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
    parse(&text, &dir, host).map_err(|source| ImageError::Toml { path, source: Box::new(source) })
}

/// The host itself: HTTPS, or HTTP on loopback, where no certificate can be had.
fn own(host: &str) -> Endpoint {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let loopback = name == "localhost" || name.starts_with("127.") || name == "[::1]";
    let scheme = if loopback { "http" } else { "https" };
    let real = if host == "docker.io" { "registry-1.docker.io" } else { host };
    Endpoint {
        base: format!("{scheme}://{real}/v2"),
        resolve: true,
        skip_verify: false,
        ca: Vec::new(),
        client: Vec::new(),
        headers: BTreeMap::new(),
        own: true,
    }
}

fn parse(text: &str, dir: &Path, host: &str) -> Result<Vec<Endpoint>, toml::de::Error> {
    let file: File = toml::from_str(text)?;
    let mut endpoints = Vec::new();
    for (url, table) in file.host {
        let table: HostTable = table.try_into()?;
        endpoints.push(endpoint(&url, table, dir, false));
    }
    let server = file.server.as_deref().map(|url| endpoint(url, file.own, dir, true));
    endpoints.push(server.unwrap_or_else(|| own(host)));
    Ok(endpoints)
}

fn endpoint(url: &str, table: HostTable, dir: &Path, own: bool) -> Endpoint {
    let url = url.trim_end_matches('/');
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let base = if table.override_path || url.ends_with("/v2") { url } else { format!("{url}/v2") };
    let capabilities =
        table.capabilities.unwrap_or_else(|| vec!["pull".to_owned(), "resolve".to_owned()]);
    Endpoint {
        base,
        resolve: capabilities.iter().any(|c| c == "resolve"),
        skip_verify: table.skip_verify.unwrap_or_default(),
        ca: table
            .ca
            .map(OneOrMany::all)
            .unwrap_or_default()
            .into_iter()
            .map(|p| dir.join(p))
            .collect(),
        client: table.client.map(|value| identities(&value, dir)).unwrap_or_default(),
        headers: table.header.into_iter().map(|(name, values)| (name, values.all())).collect(),
        own,
    }
}

/// `client = "x.pem"`, `["a.pem"]` or `[["cert.pem", "key.pem"]]`.
fn identities(value: &toml::Value, dir: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    match value {
        toml::Value::String(path) => vec![(dir.join(path), None)],
        toml::Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| match entry {
                toml::Value::String(path) => Some((dir.join(path), None)),
                toml::Value::Array(pair) => {
                    let mut paths =
                        pair.iter().filter_map(toml::Value::as_str).map(|p| dir.join(p));
                    Some((paths.next()?, paths.next()))
                }
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{endpoints, parse};
    use std::path::Path;

    #[test]
    fn mirrors_come_first_and_the_host_last() {
        let text = "server = \"https://registry-1.docker.io\"\n[host.\"http://127.0.0.1:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\nskip_verify = true\n[host.\"https://m.io/prefix/v2\"]\noverride_path = true\ncapabilities = [\"pull\"]\n";
        let found = parse(text, Path::new("/c"), "docker.io").unwrap();
        let bases: Vec<_> = found.iter().map(|e| e.base.as_str()).collect();
        assert_eq!(
            bases,
            [
                "http://127.0.0.1:5000/v2",
                "https://m.io/prefix/v2",
                "https://registry-1.docker.io/v2"
            ]
        );
        assert!(found[0].skip_verify && found[0].resolve && !found[1].resolve && found[2].own);
    }

    #[test]
    fn without_a_file_the_host_itself_is_asked() {
        let base = |host: &str| endpoints(Path::new("/nonexistent"), host).unwrap()[0].base.clone();
        assert_eq!(base("docker.io"), "https://registry-1.docker.io/v2");
        assert_eq!(base("127.0.0.1:5000"), "http://127.0.0.1:5000/v2");
        assert_eq!(base("registry.k8s.io"), "https://registry.k8s.io/v2");
    }
}
