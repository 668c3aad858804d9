//! Results of CNI plugins: the pod's addresses out of any version's JSON, errors as plugins print them,
//! and the result of a link that was made in process, as its plugin would have printed it.

use super::chain::{Link, Mac};
use super::lease::Lease;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Addresses of a result, in its order, those of the pod's own interface (`sandbox` set) before
/// others. Versions up to 0.2 had `ip4`/`ip6` objects; they are not spoken.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let is_elsewhere = |entry: &Value| {
        let index = entry.get("interface").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let interface = index.and_then(|index| interfaces?.get(index));
        interface.is_some_and(|known| text(known, "sandbox").is_empty())
    };
    let parse = |entry: &Value| text(entry, "address").split('/').next()?.parse().ok();
    let mut entries: Vec<&Value> =
        result.get("ips").and_then(Value::as_array).into_iter().flatten().collect();
    entries.sort_by_key(|entry| is_elsewhere(entry));
    entries.into_iter().filter_map(parse).collect()
}

/// Names of a result's interfaces on the node.
pub fn on_the_node(result: &Value) -> Vec<String> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let here = |known: &&Value| text(known, "sandbox").is_empty();
    interfaces
        .into_iter()
        .flatten()
        .filter(here)
        .map(|known| text(known, "name").to_owned())
        .collect()
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a failed plugin said (SPEC section 5, "Error").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `code`; 0 = it gave none.
    pub code: u64,
    /// `msg` and `details`, or the raw text where it is no such JSON.
    pub text: String,
}

/// Reads what a failed plugin printed.
pub fn failure(stdout: &[u8], stderr: &[u8]) -> Said {
    let said: Value = serde_json::from_slice(stdout).unwrap_or_default();
    let words = match (text(&said, "msg"), text(&said, "details")) {
        ("", "") => {
            let raw = if stdout.is_empty() { stderr } else { stdout };
            String::from_utf8_lossy(raw).trim().to_owned()
        }
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}: {details}"),
    };
    let words: String =
        words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2_000).collect();
    let words = if words.is_empty() { "it said nothing".to_owned() } else { words };
    Said { code: said.get("code").and_then(Value::as_u64).unwrap_or_default(), text: words }
}

/// An interface of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// The pod's namespace; unset = it is on the node.
    pub sandbox: Option<String>,
}

/// The result of a link that was made in process; the pod's interface is the last one.
pub fn of_link(version: &str, link: &Link, interfaces: &[Interface], leases: &[Lease]) -> Value {
    let pods_own = interfaces.len().saturating_sub(1);
    let interfaces: Vec<Value> = interfaces
        .iter()
        .map(|known| match &known.sandbox {
            None => json!({"name": known.name, "mac": known.mac.to_string()}),
            Some(path) => {
                json!({"name": known.name, "mac": known.mac.to_string(), "sandbox": path})
            }
        })
        .collect();
    let ips = leases.iter().map(|lease| {
        let mut ip = Map::new();
        // Before 1.0.0 an address told its family.
        if !matches!(version, "1.0.0" | "1.1.0") {
            let family = if lease.gateway.is_ipv4() { "4" } else { "6" };
            ip.insert("version".to_owned(), json!(family));
        }
        ip.insert("interface".to_owned(), json!(pods_own));
        ip.insert("address".to_owned(), json!(lease.address));
        ip.insert("gateway".to_owned(), json!(lease.gateway));
        Value::Object(ip)
    });
    let routes = link.routes(leases).into_iter().map(|route| match route.gw {
        None => json!({"dst": route.dst}),
        Some(gw) => json!({"dst": route.dst, "gw": gw}),
    });
    let mut result = json!({
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    });
    if let (Some(dns), Value::Object(result)) = (&link.dns, &mut result) {
        result.insert("dns".to_owned(), dns.clone());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{Said, addresses, failure, on_the_node};
    use serde_json::json;

    #[test]
    fn addresses_come_without_their_prefix_and_the_pods_own_first() {
        let result = json!({
            "interfaces": [{"name":"br"},{"name":"eth0","sandbox":"/n"}],
            "ips": [
                {"address":"10.9.0.1/24","interface":0},
                {"address":"10.0.0.2/24","interface":1},
                {"address":"fd00::2/64"},
                {"address":"x"},
            ],
        });
        let texts: Vec<_> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.2", "fd00::2", "10.9.0.1"]);
        assert_eq!(on_the_node(&result), ["br"]);
    }

    #[test]
    fn a_plugins_words_are_passed_on() {
        let said = |code, text: &str| Said { code, text: text.to_owned() };
        assert_eq!(
            failure(br#"{"code":7,"msg":"no","details":"because"}"#, b""),
            said(7, "no: because")
        );
        assert_eq!(failure(b"", b"panic\n"), said(0, "panic"));
        assert_eq!(failure(b"", b""), said(0, "it said nothing"));
    }
}
