//! Text of the files that a pod gets: `resolv.conf`, `hosts`, `hostname`. Every value is checked
//! before it is pasted: nothing with a line end or a space reaches a line of its own.

use super::config::Dns;
use crate::kind::Refused;
use std::fmt::Write;
use std::net::IpAddr;

/// `resolv.conf`: the request's, or the node's text where the request says nothing.
pub fn resolv_conf(dns: Option<&Dns>, node: &str) -> Result<String, Refused> {
    let Some(dns) = dns else { return Ok(node.to_owned()) };
    let mut text = String::new();
    let checked = |field: &str, values: &[String]| -> Result<String, Refused> {
        for value in values {
            word(&format!("config.dns_config.{field}"), value)?;
        }
        Ok(values.join(" "))
    };
    let searches = checked("searches", &dns.searches)?;
    let options = checked("options", &dns.options)?;
    checked("servers", &dns.servers)?;
    if !searches.is_empty() {
        let _infallible = writeln!(text, "search {searches}");
    }
    for server in &dns.servers {
        let _infallible = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let _infallible = writeln!(text, "options {options}");
    }
    Ok(text)
}

/// `hosts` of a pod with its own network.
pub fn hosts(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _infallible = writeln!(text, "{ip}\t{hostname}");
    }
    text
}

/// A host name may hold letters, digits, dots and dashes, up to 64 (`gethostname(2)`).
pub fn hostname(field: &str, name: &str) -> Result<(), Refused> {
    let legal = name.len() <= 64
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if legal {
        Ok(())
    } else {
        Err(Refused::new(field, name, "up to 64 letters, digits, dots, dashes or underscores"))
    }
}

fn word(field: &str, value: &str) -> Result<(), Refused> {
    let legal = !value.is_empty()
        && value.len() <= 1_024
        && !value.contains(|c: char| c.is_whitespace() || c.is_control());
    if legal {
        Ok(())
    } else {
        Err(Refused::new(field, value, "one word without spaces or line ends"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Dns, hosts, resolv_conf};

    #[test]
    fn unset_is_the_nodes_file_and_empty_is_empty() {
        assert_eq!(resolv_conf(None, "nameserver 1.1.1.1\n").unwrap(), "nameserver 1.1.1.1\n");
        assert_eq!(resolv_conf(Some(&Dns::default()), "x").unwrap(), "");
    }

    #[test]
    fn lines_stand_as_given() {
        let dns = Dns {
            servers: vec!["10.10.10.10".into()],
            searches: vec!["google.com".into()],
            options: vec!["ndots:8".into()],
        };
        assert_eq!(
            resolv_conf(Some(&dns), "").unwrap(),
            "search google.com\nnameserver 10.10.10.10\noptions ndots:8\n"
        );
    }

    #[test]
    fn a_line_end_in_a_value_is_refused() {
        let dns = Dns { servers: vec!["1.1.1.1\noptions debug".into()], ..Dns::default() };
        assert!(resolv_conf(Some(&dns), "").is_err());
    }

    #[test]
    fn every_address_gets_a_line() {
        let text = hosts("web", &["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(text.contains("10.0.0.2\tweb\n") && text.ends_with("fd00::2\tweb\n"));
    }
}
