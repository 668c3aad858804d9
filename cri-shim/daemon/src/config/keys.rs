//! What can be configured, as types. The words for people, and each default once more, are in
//! `default.toml` beside this file, which `wherry config` prints; a test holds the two together.
//! Values that can be wrong are types that refuse while a file is read, so that the refusal names the
//! line. Nothing is read here.

use super::containers::Containers;
use super::nri::Nri;
use super::telemetry::{Metrics, Traces};
use crate::streaming::server::Settings;
use crate::streaming::tls::TlsFiles;
use serde::{Deserialize, Deserializer};
use shim_model::handler::choice::Configured;
use shim_model::kind::Refused;
use shim_model::limits;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All of it.
#[expect(clippy::struct_excessive_bools, reason = "each is one key of the file")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(deserialize_with = "absolute")]
    pub(crate) root: PathBuf,
    #[serde(deserialize_with = "absolute")]
    pub(crate) state: PathBuf,
    pub(crate) create_missing_host_paths: bool,
    pub(crate) enable_unprivileged_ports: bool,
    pub(crate) enable_unprivileged_icmp: bool,
    pub(crate) socket: Socket,
    pub(crate) streaming: Streaming,
    pub(crate) cni: Cni,
    pub(crate) network: Network,
    pub(crate) registry: Registry,
    pub(crate) images: Images,
    pub(crate) containers: Containers,
    pub(crate) cgroup: Cgroup,
    pub(crate) cdi: Cdi,
    pub(crate) nri: Nri,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    pub(crate) limits: Limits,
    #[serde(deserialize_with = "super::handlers::all")]
    pub(crate) handlers: BTreeMap<String, Configured>,
}

/// Table `[socket]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Socket {
    #[serde(deserialize_with = "absolute")]
    pub(crate) path: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) uids: Vec<u32>,
    pub(crate) gids: Vec<u32>,
}

/// Access mode of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Mode(pub(crate) u32);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            // Nothing for others, and nothing to execute: the socket is root's door to the node.
            Ok(mode) if mode & !0o660 == 0 => Ok(Self(mode)),
            Ok(_) | Err(_) => {
                Err(format!("found \"{text}\", allowed is octal text of at most 0660"))
            }
        }
    }
}

/// Table `[streaming]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Streaming {
    pub(crate) address: Address,
    pub(crate) idle_timeout: Span,
    pub(crate) certificate: Optional,
    pub(crate) key: Optional,
    pub(crate) client_ca: Optional,
}

impl Streaming {
    /// What the streaming server needs; the three files must fit together.
    pub(crate) fn settings(&self) -> Result<Settings, Refused> {
        let both = "certificate and key together, or neither";
        let tls = match (&self.certificate.0, &self.key.0) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: self.client_ca.0.clone(),
            }),
            (None, None) if self.client_ca.0.is_some() => {
                let allowed = "a certificate and a key beside it";
                return Err(Refused::new("streaming.client_ca", "alone", allowed));
            }
            (None, None) => None,
            (Some(_), None) => return Err(Refused::new("streaming.key", "", both)),
            (None, Some(_)) => return Err(Refused::new("streaming.certificate", "", both)),
        };
        Ok(Settings { address: self.address.0, idle: self.idle_timeout.0, tls })
    }
}

/// Where a server listens and is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Address(pub(crate) SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            // The address stands in URLs, so it must be one that leads here.
            Ok(address) if !address.ip().is_unspecified() => Ok(Self(address)),
            Ok(_) | Err(_) => Err(format!(
                "found \"{}\", allowed is an address of this node with a port, such as 127.0.0.1:0 or [::1]:0",
                text.escape_default()
            )),
        }
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || {
            let text = text.escape_default();
            format!("found \"{text}\", allowed is a number with s, m or h, from 1s to 1000h")
        };
        let unit = text.chars().next_back().ok_or_else(refused)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return Err(refused()),
        };
        let number: u64 = text.trim_end_matches(unit).parse().map_err(|_bad| refused())?;
        match number.checked_mul(seconds) {
            Some(total @ 1..=3_600_000) => Ok(Self(Duration::from_secs(total))),
            Some(_) | None => Err(refused()),
        }
    }
}

/// A file that need not be; empty text is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Optional(pub(crate) Option<PathBuf>);

impl TryFrom<String> for Optional {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = PathBuf::from(&text);
        match () {
            () if text.is_empty() => Ok(Self(None)),
            () if path.is_absolute() => Ok(Self(Some(path))),
            () => Err(format!("found \"{text}\", allowed is an absolute path, or \"\" for none")),
        }
    }
}

/// Table `[cni]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cni {
    #[serde(deserialize_with = "absolute")]
    pub(crate) conf_dir: PathBuf,
    #[serde(deserialize_with = "all_absolute")]
    pub(crate) bin_dirs: Vec<PathBuf>,
    #[serde(deserialize_with = "absolute")]
    pub(crate) cache_dir: PathBuf,
    pub(crate) native: bool,
}

/// Table `[network]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) subnet: Subnet,
    pub(crate) bridge: Bridge,
}

/// Addresses of the built-in bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Subnet {
    /// First address.
    pub(crate) address: Ipv4Addr,
    /// Bits of the network, 8 to 29.
    pub(crate) prefix: u8,
}

impl Subnet {
    /// `10.89.0.0/16`.
    pub(crate) fn text(self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || {
            format!("found \"{text}\", allowed is an IPv4 network such as 10.89.0.0/16, /8 to /29")
        };
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let address: Ipv4Addr = address.parse().map_err(|_bad| refused())?;
        let prefix: u8 = prefix.parse().map_err(|_bad| refused())?;
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or_default();
        if (8..=29).contains(&prefix) && address.to_bits() & host_bits == 0 {
            Ok(Self { address, prefix })
        } else {
            Err(refused())
        }
    }
}

/// Name of a network device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Bridge(pub(crate) String);

impl TryFrom<String> for Bridge {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The kernel's IFNAMSIZ is 16 with the zero byte.
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if (1..=15).contains(&text.len()) && text.chars().all(legal) && text != "." && text != ".."
        {
            Ok(Self(text))
        } else {
            Err(format!(
                "found \"{}\", allowed are 1 to 15 letters, digits, '-', '_' and '.'",
                text.escape_default()
            ))
        }
    }
}

/// Table `[registry]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    #[serde(deserialize_with = "absolute")]
    pub(crate) config_dir: PathBuf,
    #[serde(deserialize_with = "absolute")]
    pub(crate) auth_file: PathBuf,
}

/// Table `[images]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    pub(crate) layers_at_once: Count<32>,
}

/// Table `[cdi]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cdi {
    #[serde(deserialize_with = "all_absolute")]
    pub(crate) spec_dirs: Vec<PathBuf>,
}

/// Table `[cgroup]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    pub(crate) driver: Driver,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    /// What fits the node.
    Auto,
    /// Folders in the hierarchies.
    Cgroupfs,
    /// Slices and scopes of systemd's.
    Systemd,
}

/// Table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: Level,
    pub(crate) format: Format,
}

/// A rule for what is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Level(pub(crate) String);

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(format!(
                "found \"{text}\" ({error}), allowed is a level such as info, or rules such as info,shim_image=debug"
            )),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Text,
    Json,
}

/// Table `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) worker_threads: Count<64>,
    pub(crate) blocking_threads: Count<512>,
}

/// A number from 1 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Count<const MAX: usize>(pub(crate) usize);

impl<const MAX: usize> TryFrom<i64> for Count<MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match usize::try_from(number) {
            Ok(count) if (1..=MAX).contains(&count) => Ok(Self(count)),
            Ok(_) | Err(_) => Err(format!("found {number}, allowed is 1 to {MAX}")),
        }
    }
}

/// A path of the host must not depend on where the daemon was started.
pub(super) fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() { Ok(path) } else { Err(relative(&path)) }
}

fn all_absolute<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(from)?;
    paths.iter().find(|path| !path.is_absolute()).map_or(Ok(()), |path| Err(relative(path)))?;
    Ok(paths)
}

fn relative<E: serde::de::Error>(path: &Path) -> E {
    E::custom(format!("found \"{}\", allowed is an absolute path", path.display()))
}

// === defaults ===

impl Default for Config {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/var/lib/wherry"),
            state: PathBuf::from("/run/wherry"),
            create_missing_host_paths: true,
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
            socket: Socket::default(),
            streaming: Streaming::default(),
            cni: Cni::default(),
            network: Network::default(),
            registry: Registry::default(),
            images: Images::default(),
            containers: Containers::default(),
            cgroup: Cgroup::default(),
            cdi: Cdi::default(),
            nri: Nri::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
            limits: Limits::default(),
            handlers: BTreeMap::new(),
        }
    }
}

impl Default for Socket {
    fn default() -> Self {
        let path = PathBuf::from("/run/wherry/wherry.sock");
        Self { path, mode: Mode(0o660), uids: Vec::new(), gids: Vec::new() }
    }
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            idle_timeout: Span(limits::STREAM_IDLE),
            certificate: Optional(None),
            key: Optional(None),
            client_ca: Optional(None),
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            conf_dir: PathBuf::from("/etc/cni/net.d"),
            bin_dirs: vec![PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")],
            cache_dir: PathBuf::from("/var/lib/cni"),
            native: true,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            subnet: Subnet { address: Ipv4Addr::new(10, 89, 0, 0), prefix: 16 },
            bridge: Bridge("wherry0".to_owned()),
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            config_dir: PathBuf::from("/etc/wherry/certs.d"),
            auth_file: PathBuf::from("/etc/wherry/auth.json"),
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self { layers_at_once: Count(3) }
    }
}

impl Default for Cdi {
    fn default() -> Self {
        Self { spec_dirs: vec![PathBuf::from("/etc/cdi"), PathBuf::from("/var/run/cdi")] }
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self { driver: Driver::Auto }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level("info".to_owned()), format: Format::Text }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { worker_threads: Count(2), blocking_threads: Count(64) }
    }
}
