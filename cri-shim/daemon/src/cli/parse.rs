//! Docker's spellings of ports, volumes, memory and processors. Pure; a refusal says what is allowed.

use super::failure::CliError;
use shim_proto::runtime_v1 as cri;
use std::path::Path;

/// `[IP:]HOST:CONTAINER[/tcp|udp|sctp]`; an IPv6 address stands in brackets.
pub(crate) fn port(text: &str) -> Result<cri::PortMapping, CliError> {
    let refuse = || {
        CliError::new(format!(
            "-p {text}: allowed is [IP:]HOST:CONTAINER[/tcp|udp|sctp], such as 3000:3000"
        ))
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => cri::Protocol::Tcp,
        "udp" => cri::Protocol::Udp,
        "sctp" => cri::Protocol::Sctp,
        _ => return Err(refuse()),
    };
    let (rest, container) = numbers.rsplit_once(':').ok_or_else(refuse)?;
    let (host_ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let host_ip = host_ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host_ip);
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).map(i32::from);
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(refuse());
    }
    Ok(cri::PortMapping {
        protocol: protocol.into(),
        container_port: number(container).ok_or_else(refuse)?,
        host_port: number(host).ok_or_else(refuse)?,
        host_ip: host_ip.to_owned(),
    })
}

/// `HOST:CONTAINER[:ro]`; `here` makes a relative host path absolute, where it is known.
pub(crate) fn volume(text: &str, here: Option<&Path>) -> Result<cri::Mount, CliError> {
    let refuse = || {
        CliError::new(format!("-v {text}: allowed is HOST:CONTAINER[:ro], such as ./data:/data"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, readonly) = match parts.as_slice() {
        [host, container] | [host, container, "rw"] => (*host, *container, false),
        [host, container, "ro"] => (*host, *container, true),
        _ => return Err(refuse()),
    };
    if !(host.starts_with('/') || host.starts_with('.')) {
        return Err(CliError::new(format!(
            "-v {text}: named volumes are not built yet; give a path of the host, such as ./{host}"
        )));
    }
    if !container.starts_with('/') || container.bytes().all(|byte| byte == b'/') {
        return Err(refuse());
    }
    let unknown = || CliError::new(format!("-v {text}: the present folder is gone; go to another"));
    let absolute = Path::new(host).is_absolute().then_some(Path::new("/"));
    let host_path =
        absolute.or(here).ok_or_else(unknown)?.join(host).to_string_lossy().into_owned();
    Ok(cri::Mount {
        host_path,
        container_path: container.to_owned(),
        readonly,
        ..cri::Mount::default()
    })
}

/// The least memory that is taken, as Docker has it: with less, nothing can be started.
const LEAST_MEMORY: i64 = 6 << 20;

/// `512m`, `1.5g`, `1048576`.
pub(crate) fn memory(text: &str) -> Result<i64, CliError> {
    let refuse = || {
        CliError::new(format!(
            "--memory {text}: allowed is a number with b, k, m or g, such as 512m, and at least 6m"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let lower =
        lower.strip_suffix('b').filter(|rest| rest.ends_with(['k', 'm', 'g'])).unwrap_or(&lower);
    let (digits, factor) = match lower.chars().last() {
        Some('k') => (lower.trim_end_matches('k'), 1i64 << 10),
        Some('m') => (lower.trim_end_matches('m'), 1 << 20),
        Some('g') => (lower.trim_end_matches('g'), 1 << 30),
        _ => (lower.trim_end_matches('b'), 1),
    };
    let thousandths = decimal(digits, 3).and_then(|number| number.checked_mul(factor));
    let bytes = thousandths.map(|thousandths| thousandths / 1_000);
    bytes.filter(|bytes| *bytes >= LEAST_MEMORY).ok_or_else(refuse)
}

/// `1.5` as a number of the last of so many digits behind the point.
fn decimal(text: &str, places: usize) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<places$}");
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && fraction.len() <= places
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// `1.5` processors as microseconds of a 100 ms period.
pub(crate) fn cpus(text: &str) -> Result<i64, CliError> {
    // Five digits of a processor are one microsecond of 100 ms.
    decimal(text, 5).filter(|quota| *quota >= 1_000).ok_or_else(|| {
        CliError::new(format!(
            "--cpus {text}: allowed is a number of processors, such as 1.5, and at least 0.01"
        ))
    })
}

/// `K=V`, or `K` with the value of the caller's own environment; nothing where that has none.
pub(crate) fn env(
    text: &str,
    own: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Option<cri::KeyValue>, CliError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.as_bytes().to_vec())),
        None => (text, own(text)),
    };
    if key.is_empty() {
        return Err(CliError::new(format!("-e {text}: allowed is NAME=VALUE or NAME")));
    }
    Ok(value.map(|value| cri::KeyValue { key: key.to_owned(), value }))
}

/// `[IP:]HOST:CONTAINER` as Docker shows it.
pub(crate) fn shown_port(port: &cri::PortMapping) -> String {
    let ip = match port.host_ip.as_str() {
        "" => "0.0.0.0".to_owned(),
        six if six.contains(':') => format!("[{six}]"),
        four => four.to_owned(),
    };
    let protocol = port.protocol().as_str_name().to_ascii_lowercase();
    format!("{ip}:{}->{}/{protocol}", port.host_port, port.container_port)
}

/// A working folder: Docker takes absolute ones only.
pub(crate) fn workdir(text: &str) -> Result<String, CliError> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(CliError::new(format!("-w {text}: allowed is an absolute path, such as /data")))
}

/// A name that a container may have.
pub(crate) fn checked_name(name: &str) -> Result<String, CliError> {
    let legal = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if legal {
        return Ok(name.to_owned());
    }
    Err(CliError::new(format!(
        "--name {name}: allowed are 1 to 63 letters, digits, dashes, dots and underscores, a letter or digit first"
    )))
}

/// A number for names only, by the keys that the standard library gives its hash tables.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// A name that no container has yet and that people can say: made of a number.
pub(crate) fn name(number: u64) -> String {
    const FIRST: [&str; 16] = [
        "brave", "calm", "clever", "eager", "fair", "glad", "kind", "lucky", "merry", "proud",
        "quick", "quiet", "sharp", "swift", "warm", "wise",
    ];
    const SECOND: [&str; 16] = [
        "barge", "brig", "canoe", "clipper", "cutter", "dinghy", "ferry", "galley", "kayak",
        "ketch", "punt", "raft", "skiff", "sloop", "tug", "yawl",
    ];
    let pick = |words: [&'static str; 16], at: u64| {
        words.get(usize::try_from(at % 16).unwrap_or_default()).copied().unwrap_or("swift")
    };
    format!("{}-{}-{:03x}", pick(FIRST, number), pick(SECOND, number >> 4), (number >> 8) & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::{checked_name, cpus, env, memory, name, port, volume};
    use std::path::Path;

    #[test]
    fn ports_are_dockers() {
        let found = port("127.0.0.1:3000:80/udp").unwrap();
        assert_eq!(
            (found.host_ip.as_str(), found.host_port, found.container_port, found.protocol),
            ("127.0.0.1", 3000, 80, 1)
        );
        assert_eq!(port("[::1]:53:53/sctp").unwrap().host_ip, "::1");
        for bad in ["3000", "0:80", "99999:80", "a:b", "1:2/x", "x:1:2", ""] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_shown_as_docker_does() {
        let shown = |text: &str| super::shown_port(&port(text).unwrap());
        assert_eq!(shown("3000:80"), "0.0.0.0:3000->80/tcp");
        assert_eq!(shown("127.0.0.1:53:5353/udp"), "127.0.0.1:53->5353/udp");
        assert_eq!(shown("[::1]:1:2/sctp"), "[::1]:1->2/sctp");
    }

    #[test]
    fn volumes_may_be_relative_and_read_only() {
        let found = volume("./data:/data:ro", Some(Path::new("/home/me"))).unwrap();
        assert_eq!((found.host_path.as_str(), found.readonly), ("/home/me/./data", true));
        assert_eq!(volume("/a:/b", None).unwrap().host_path, "/a");
        assert!(volume("./a:/b", None).is_err());
        for bad in ["data", "data:/x", "/a:b", "/a:/b:xx", "/a:/b:ro:z", "/a:/"] {
            assert!(volume(bad, Some(Path::new("/"))).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_and_processors_have_units() {
        assert_eq!(
            ["512m", "1GB", "8388608", "1.5g", "0.5g"].map(|text| memory(text).unwrap()),
            [512 << 20, 1 << 30, 8 << 20, 3 << 29, 1 << 29]
        );
        for bad in ["lots", "-1m", "0", "1m", "", "m", ".", "1.2345m", "99999999999999999g"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert_eq!(
            ["1.5", "0.25", "2", ".5", "2."].map(|text| cpus(text).unwrap()),
            [150_000, 25_000, 200_000, 50_000, 200_000]
        );
        for bad in ["0", "x", "", ".", "0.001", "-1", "+1", "1.123456"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_name_takes_the_callers_value() {
        let own = |key: &str| (key == "HOME").then(|| b"/root".to_vec());
        let pair = |text: &str| env(text, own).unwrap().map(|found| (found.key, found.value));
        assert_eq!(pair("A=b=c"), Some(("A".to_owned(), b"b=c".to_vec())));
        assert_eq!(pair("HOME"), Some(("HOME".to_owned(), b"/root".to_vec())));
        assert_eq!(pair("UNSET"), None);
        assert!(env("=x", own).is_err() && env("", own).is_err());
    }

    #[test]
    fn names_can_be_said() {
        assert_eq!(name(0), "brave-barge-000");
        assert!(name(u64::MAX).len() < 20);
        assert!(checked_name(&name(u64::MAX)).is_ok());
        for bad in ["", "-x", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }
}
