//! Where a registry may send a client: redirects and the addresses of token services are a stranger's
//! words (`reliability.md` §2.2, R2 and R3). Never from HTTPS to HTTP, never to this node's own services or
//! to a link-local address (cloud metadata), unless the registry itself is there. Pure.

use reqwest::Url;
use std::net::IpAddr;

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This node.
    Node,
    /// Its link.
    Link,
    /// Further.
    Far,
}

/// The next address of a request at `from`, which a registry at `home` was asked first; or why it is not
/// followed.
pub fn next(from: &Url, location: &str, home: &Url) -> Result<Url, &'static str> {
    let to = from.join(location).map_err(|_bad| "the place has no address")?;
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err("it leads from https to http");
    }
    may_ask(&to, home).map(|()| to)
}

/// Whether a registry at `home` may have us ask this address.
pub fn may_ask(to: &Url, home: &Url) -> Result<(), &'static str> {
    if !matches!(to.scheme(), "http" | "https") {
        return Err("its address is neither http nor https");
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("its address holds a user or a password");
    }
    if to.host_str() == home.host_str() {
        return Ok(());
    }
    match reach(to) {
        Reach::Far => Ok(()),
        near if near == reach(home) => Ok(()),
        Reach::Node => Err("it leads to this node's own services"),
        Reach::Link => Err("it leads to a link-local address"),
    }
}

/// Credentials and headers are for one origin: scheme, host and port.
pub fn same_origin(one: &Url, other: &Url) -> bool {
    let of = |url: &Url| {
        (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
    };
    of(one) == of(other)
}

/// True for this node itself: there nobody asks a proxy.
pub fn is_this_node(url: &Url) -> bool {
    reach(url) == Reach::Node
}

/// True for an address that a name must not resolve to.
pub fn is_link_local(address: IpAddr) -> bool {
    of_address(address) == Reach::Link
}

fn reach(url: &Url) -> Reach {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(address) => of_address(address),
        Err(_name) if host == "localhost" || host.ends_with(".localhost") => Reach::Node,
        Err(_name) => Reach::Far,
    }
}

fn of_address(address: IpAddr) -> Reach {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return Reach::Node;
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local { Reach::Link } else { Reach::Far }
}

#[cfg(test)]
mod tests {
    use super::{next, same_origin};
    use reqwest::Url;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn to(home: &str, location: &str) -> Result<String, &'static str> {
        next(&url(home), location, &url(home)).map(|url| url.to_string())
    }

    #[test]
    fn relative_and_far_places_are_followed() {
        assert_eq!(to("https://r.io/v2/a", "/x?y=1"), Ok("https://r.io/x?y=1".into()));
        assert_eq!(to("https://r.io/v2/a", "//cdn.io/x"), Ok("https://cdn.io/x".into()));
        assert_eq!(to("http://r.io/v2/a", "https://cdn.io/x"), Ok("https://cdn.io/x".into()));
        assert_eq!(
            to("https://10.0.0.1/v2", "https://10.0.0.2/x"),
            Ok("https://10.0.0.2/x".into())
        );
    }

    #[test]
    fn near_places_and_weaker_transport_are_not() {
        for bad in [
            "http://r.io/x",
            "https://127.0.0.1/x",
            "https://127.1/x",
            "https://2130706433/x",
            "https://localhost/x",
            "https://a.localhost/x",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://0.0.0.0/x",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/x",
            "https://u:p@cdn.io/x",
            "file:///etc/passwd",
            "unix:///run/x",
            "https://",
        ] {
            assert!(to("https://r.io/v2/a", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_registry_of_this_node_may_name_this_node() {
        assert!(to("http://127.0.0.1:5000/v2/a", "http://127.0.0.1:6000/x").is_ok());
        assert!(to("http://localhost:5000/v2/a", "http://[::1]:6000/x").is_ok());
        assert!(to("http://127.0.0.1:5000/v2/a", "http://169.254.169.254/x").is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&url(one), &url(other));
        assert!(same("https://r.io/a", "https://R.io:443/b"));
        assert!(!same("https://r.io", "http://r.io"));
        assert!(!same("https://r.io", "https://r.io:444"));
        assert!(!same("https://r.io", "https://s.r.io"));
    }
}
