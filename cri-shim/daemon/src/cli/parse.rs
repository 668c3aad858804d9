//! Docker's spellings of ports, volumes, memory and processors. Pure; a refusal says what is allowed.

use super::CliError;
use shim_proto::runtime_v1 as cri;

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

/// `HOST:CONTAINER[:ro]`; `here` makes a relative host path absolute.
pub(crate) fn volume(text: &str, here: &std::path::Path) -> Result<cri::Mount, CliError> {
    let refuse = || {
        CliError::new(format!("-v {text}: allowed is HOST:CONTAINER[:ro], such as ./data:/data"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, readonly) = match parts.as_slice() {
        [host, container] | [host, container, "rw"] => (*host, *container, false),
        [host, container, "ro"] => (*host, *container, true),
        _ => return Err(refuse()),
    };
    if !(host.starts_with('/') || host.starts_with('.')) || !container.starts_with('/') {
        return Err(refuse());
    }
    let host_path = here.join(host).to_string_lossy().into_owned();
    Ok(cri::Mount {
        host_path,
        container_path: container.to_owned(),
        readonly,
        ..cri::Mount::default()
    })
}

/// `512m`, `1g`, `1048576`.
pub(crate) fn memory(text: &str) -> Result<i64, CliError> {
    let refuse = || {
        CliError::new(format!(
            "--memory {text}: allowed is a number with b, k, m or g, such as 512m"
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
    let bytes = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(refuse)
}

/// `1.5` processors as microseconds of a 100 ms period.
pub(crate) fn cpus(text: &str) -> Result<i64, CliError> {
    let refuse =
        || CliError::new(format!("--cpus {text}: allowed is a number of processors, such as 1.5"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 5 {
        return Err(refuse());
    }
    let fraction: i64 = format!("{fraction:0<5}").parse().map_err(|_none| refuse())?;
    let whole: i64 = whole.parse().map_err(|_large| refuse())?;
    let quota = whole.checked_mul(100_000).and_then(|quota| quota.checked_add(fraction));
    quota.filter(|quota| *quota >= 1_000).ok_or_else(refuse)
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
    use super::{cpus, env, memory, name, port, volume};
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
    fn volumes_may_be_relative_and_read_only() {
        let found = volume("./data:/data:ro", Path::new("/home/me")).unwrap();
        assert_eq!((found.host_path.as_str(), found.readonly), ("/home/me/./data", true));
        for bad in ["data", "data:/x", "/a:b", "/a:/b:xx", "/a:/b:ro:z"] {
            assert!(volume(bad, Path::new("/")).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_and_processors_have_units() {
        assert_eq!(
            [memory("512m").unwrap(), memory("1GB").unwrap(), memory("4096").unwrap()],
            [512 << 20, 1 << 30, 4096]
        );
        assert!(memory("lots").is_err() && memory("-1m").is_err() && memory("0").is_err());
        assert_eq!(
            [cpus("1.5").unwrap(), cpus("0.25").unwrap(), cpus("2").unwrap()],
            [150_000, 25_000, 200_000]
        );
        assert!(cpus("0").is_err() && cpus("x").is_err() && cpus(".5").is_err());
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
    }
}
