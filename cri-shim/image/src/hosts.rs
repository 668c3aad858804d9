//! Where a registry's host is really asked: `certs.d/HOST/hosts.toml` in containerd's form, mirrors
//! in the file's order, the host itself last. Without a `hosts.toml`, certificates of that folder named
//! as Docker names them. A mirror never leaks into an image's name.

use crate::error::ImageError;
use reqwest::Url;
use serde::Deserialize;
use serde::de::Error as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One place to ask.
#[expect(clippy::struct_excessive_bools, reason = "each is one setting of hosts.toml")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host:port` plus the API's path, without a slash at the end.
    pub base: Url,
    /// May resolve tags; without it, only digests are asked of it.
    pub resolve: bool,
    /// Serves manifests and blobs; without it, nothing is asked of it.
    pub pull: bool,
    /// Does not check the server's certificate.
    pub skip_verify: bool,
    /// Further roots, PEM files.
    pub ca: Vec<PathBuf>,
    /// Client identities: PEM files of certificate and key (or both in one).
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Headers of every request.
    pub headers: BTreeMap<String, Vec<String>>,
    /// How long a connection may take to come about.
    pub dial: Option<Duration>,
    /// True for the host itself: the credentials of a pull are for it and for no mirror.
    pub own: bool,
}

impl Endpoint {
    /// `host:port` as it stands in the address.
    pub fn authority(&self) -> String {
        authority(&self.base)
    }
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

/// `"both.pem"` or `["cert.pem", "key.pem"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Identity {
    Both(PathBuf),
    Pair(PathBuf, PathBuf),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostTable {
    capabilities: Option<Vec<String>>,
    skip_verify: Option<bool>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<Identity>>,
    header: BTreeMap<String, OneOrMany<String>>,
    override_path: bool,
    dial_timeout: Option<String>,
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
    // With a port, containerd's own spelling is `HOST_PORT_`; ours was `HOST_PORT` at first.
    let port = |end: &str| host.rsplit_once(':').map(|(name, port)| format!("{name}_{port}{end}"));
    let names = [port("_"), port(""), Some(host.to_owned()), Some("_default".to_owned())];
    let mut folders = names.into_iter().flatten().map(|name| config.join(name));
    let Some(dir) = folders.find(|dir| dir.is_dir()) else { return Ok(vec![itself(host)?]) };
    let path = dir.join("hosts.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text, &dir, host)
            .map_err(|source| ImageError::Toml { path, source: Box::new(source) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let table = certificates(&dir).map_err(ImageError::file("list", &dir))?;
            let endpoint = endpoint(itself(host)?, table, &dir);
            endpoint
                .map(|only| vec![only])
                .map_err(|source| ImageError::Toml { path, source: Box::new(source) })
        }
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}

/// The host itself: HTTPS, or HTTP on loopback, where no certificate can be had.
fn itself(host: &str) -> Result<Endpoint, ImageError> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let loopback = name == "localhost" || name.starts_with("127.") || name == "[::1]";
    let scheme = if loopback { "http" } else { "https" };
    let base = Url::parse(&format!("{scheme}://{}/v2", real(host)))
        .map_err(|error| ImageError::Client { host: host.to_owned(), said: error.to_string() })?;
    Ok(plain(base, true))
}

/// Docker Hub's registry has another name than the hub.
fn real(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// A place without any setting.
fn plain(base: Url, own: bool) -> Endpoint {
    Endpoint {
        base,
        resolve: true,
        pull: true,
        skip_verify: false,
        ca: Vec::new(),
        client: Vec::new(),
        headers: BTreeMap::new(),
        dial: None,
        own,
    }
}

/// An address of this very host; a port that nobody names is the scheme's.
fn is_of(base: &Url, host: &str) -> bool {
    Url::parse(&format!("{}://{}", base.scheme(), real(host))).is_ok_and(|own| {
        own.host_str() == base.host_str()
            && own.port_or_known_default() == base.port_or_known_default()
    })
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn parse(text: &str, dir: &Path, host: &str) -> Result<Vec<Endpoint>, toml::de::Error> {
    let file: File = toml::from_str(text)?;
    let mut endpoints = Vec::new();
    for (url, table) in file.host {
        let table: HostTable = table.try_into()?;
        let base = base(&url, table.override_path)?;
        // The host may stand in its own list, to be given settings.
        let own = is_of(&base, host);
        endpoints.push(endpoint(plain(base, own), table, dir)?);
    }
    let last = match &file.server {
        Some(server) => plain(base(server, file.own.override_path)?, true),
        None => itself(host).map_err(toml::de::Error::custom)?,
    };
    endpoints.push(endpoint(last, file.own, dir)?);
    Ok(endpoints)
}

/// The address that is asked: `/v2` is added where the file does not say otherwise. A name and a password
/// in it are no way to give credentials, and would be told in errors.
fn base(url: &str, override_path: bool) -> Result<Url, toml::de::Error> {
    let refuse = |why: &str| toml::de::Error::custom(format!("the address of a host {why}"));
    let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let mut base = Url::parse(&whole).map_err(|error| refuse(&format!("is none: {error}")))?;
    if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
        return Err(refuse("begins with http:// or https:// and a name"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(refuse("holds no user and no password"));
    }
    base.set_query(None);
    base.set_fragment(None);
    let path = base.path().trim_end_matches('/').to_owned();
    let keep = override_path || path.ends_with("/v2");
    base.set_path(&if keep { path } else { format!("{path}/v2") });
    Ok(base)
}

fn endpoint(to: Endpoint, table: HostTable, dir: &Path) -> Result<Endpoint, toml::de::Error> {
    let (mut resolve, mut pull) = (true, true);
    if let Some(named) = table.capabilities.filter(|named| !named.is_empty()) {
        let named: Vec<String> = named.iter().map(|name| name.to_ascii_lowercase()).collect();
        let known = ["pull", "resolve", "push"];
        if let Some(unknown) = named.iter().find(|name| !known.contains(&name.as_str())) {
            let text = format!("capability \"{unknown}\"; known are pull, resolve and push");
            return Err(toml::de::Error::custom(text));
        }
        let has = |name: &str| named.iter().any(|known| known == name);
        (resolve, pull) = (has("resolve"), has("pull"));
    }
    let all = |files: Option<OneOrMany<PathBuf>>| files.map(OneOrMany::all).unwrap_or_default();
    let identity = |identity| match identity {
        Identity::Both(file) => (dir.join(file), None),
        Identity::Pair(certificate, key) => (dir.join(certificate), Some(dir.join(key))),
    };
    let clients = table.client.map(OneOrMany::all).unwrap_or_default();
    Ok(Endpoint {
        resolve,
        pull,
        skip_verify: table.skip_verify.unwrap_or_default(),
        ca: all(table.ca).into_iter().map(|file| dir.join(file)).collect(),
        client: clients.into_iter().map(identity).collect(),
        headers: table.header.into_iter().map(|(name, values)| (name, values.all())).collect(),
        dial: table.dial_timeout.as_deref().map(duration).transpose()?,
        ..to
    })
}

/// A duration as Go writes it: `1.5s`, `300ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, toml::de::Error> {
    let refuse = || toml::de::Error::custom(format!("dial_timeout \"{text}\" is none like 30s"));
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_bad| refuse())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_bad| refuse())?;
        sum = sum.checked_add(part).ok_or_else(refuse)?;
        rest = after;
    }
    if sum.is_zero() { Err(refuse()) } else { Ok(sum) }
}

/// What a folder holds without a `hosts.toml`: `*.crt` are roots, `NAME.cert` with `NAME.key` identities.
fn certificates(dir: &Path) -> std::io::Result<HostTable> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        files.push(entry?.path());
    }
    files.sort();
    let ends = |file: &&PathBuf, end: &str| file.extension().is_some_and(|found| found == end);
    let ca: Vec<PathBuf> = files.iter().filter(|file| ends(file, "crt")).cloned().collect();
    let pair = |file: &PathBuf| Identity::Pair(file.clone(), file.with_extension("key"));
    let client: Vec<Identity> = files.iter().filter(|file| ends(file, "cert")).map(pair).collect();
    Ok(HostTable {
        ca: Some(OneOrMany::Many(ca)),
        client: Some(OneOrMany::Many(client)),
        ..HostTable::default()
    })
}

#[cfg(test)]
mod tests {
    use super::{duration, endpoints, parse};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    fn bases(text: &str) -> Vec<String> {
        let found = parse(text, Path::new("/c"), "docker.io").unwrap();
        found.iter().map(|endpoint| endpoint.base.to_string()).collect()
    }

    #[test]
    fn mirrors_keep_the_files_order_and_the_host_is_last() {
        let text = "server = \"https://registry-1.docker.io\"\n[host.\"http://z.io:5000\"]\n[host.\"https://a.io/prefix\"]\noverride_path = true\n[host.\"m.io/x\"]\n";
        let expected = [
            "http://z.io:5000/v2",
            "https://a.io/prefix",
            "https://m.io/x/v2",
            "https://registry-1.docker.io/v2",
        ];
        assert_eq!(bases(text), expected);
        assert_eq!(bases("[host.\"https://m.io/v2\"]").len(), 2);
    }

    #[test]
    fn every_setting_is_read_and_those_of_the_file_are_the_hosts_own() {
        let text = r#"
            skip_verify = true
            ca = "own.pem"
            [host."https://m.io"]
            capabilities = ["Pull"]
            ca = ["a.pem", "/b.pem"]
            client = [["cert.pem", "key.pem"], "both.pem"]
            dial_timeout = "1m1.5s"
            [host."https://m.io".header]
            x-one = "1"
            x-two = ["2", "3"]
            [host."https://r.io:444"]
            capabilities = ["resolve"]
        "#;
        let found = parse(text, Path::new("/c"), "r.io:444").unwrap();
        let [mirror, listed, own] = found.as_slice() else { panic!("{found:?}") };
        assert!(mirror.pull && !mirror.resolve && !mirror.own && !mirror.skip_verify);
        assert_eq!(mirror.ca, [PathBuf::from("/c/a.pem"), PathBuf::from("/b.pem")]);
        let pair = (PathBuf::from("/c/cert.pem"), Some(PathBuf::from("/c/key.pem")));
        assert_eq!(mirror.client, [pair, (PathBuf::from("/c/both.pem"), None)]);
        assert_eq!(mirror.headers["x-two"], ["2", "3"]);
        assert_eq!(mirror.dial, Some(Duration::from_millis(61_500)));
        assert!(listed.own && listed.resolve && !listed.pull);
        assert!(own.own && own.skip_verify && own.ca == [PathBuf::from("/c/own.pem")]);
        assert_eq!(own.base.as_str(), "https://r.io:444/v2");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            "[host.\"https://m.io\"]\ncapabilities = [\"everything\"]",
            "[host.\"https://u:p@m.io\"]",
            "[host.\"ftp://m.io\"]",
            "server = \"unix:///x\"",
            "dial_timeout = \"soon\"",
            "client = [[\"one\", \"two\", \"three\"]]",
        ] {
            let told = parse(bad, Path::new("/c"), "r.io");
            assert!(told.is_err(), "{bad}");
            assert!(!told.unwrap_err().to_string().contains("u:p"), "{bad}");
        }
        assert!(duration("").is_err() && duration("5").is_err() && duration("1e9h").is_err());
    }

    #[test]
    fn without_a_file_the_host_itself_is_asked() {
        let base = |host: &str| endpoints(Path::new("/nonexistent"), host).unwrap()[0].base.clone();
        assert_eq!(base("docker.io").as_str(), "https://registry-1.docker.io/v2");
        assert_eq!(base("127.0.0.1:5000").as_str(), "http://127.0.0.1:5000/v2");
        assert_eq!(base("registry.k8s.io").as_str(), "https://registry.k8s.io/v2");
    }

    #[test]
    fn folders_are_found_in_every_spelling_and_may_hold_only_certificates() {
        let config = tempfile::tempdir().unwrap();
        for name in ["a.io_5000_", "b.io_5000", "c.io:5000", "_default"] {
            let folder = config.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let text = format!("server = \"https://of-{}\"", name.trim_matches('_').len());
            std::fs::write(folder.join("hosts.toml"), text).unwrap();
        }
        let docker = config.path().join("d.io");
        std::fs::create_dir(&docker).unwrap();
        for name in ["ca.crt", "client.cert", "client.key"] {
            std::fs::write(docker.join(name), "").unwrap();
        }
        let of = |host: &str| endpoints(config.path(), host).unwrap().remove(0);
        for (host, length) in [("a.io:5000", 9), ("b.io:5000", 9), ("c.io:5000", 9), ("x.io", 7)] {
            assert_eq!(of(host).base.as_str(), format!("https://of-{length}/v2"), "{host}");
        }
        let own = of("d.io");
        assert_eq!(own.ca, [docker.join("ca.crt")]);
        assert_eq!(own.client, [(docker.join("client.cert"), Some(docker.join("client.key")))]);
    }
}
