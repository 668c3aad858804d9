//! Results of CNI plugins: the pod's addresses out of any version's JSON, and errors as plugins print
//! them.

use serde_json::Value;
use std::net::IpAddr;

/// Addresses of a result, in its order, those of the pod's own interface (`sandbox` set) before
/// others. Versions up to 0.2 had `ip4`/`ip6` objects; they are not spoken.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let entries = result.get("ips").and_then(Value::as_array);
    let parse = |entry: &Value| {
        let text = entry.get("address").and_then(Value::as_str)?;
        text.split('/').next()?.parse().ok()
    };
    entries.into_iter().flatten().filter_map(parse).collect()
}

/// What a failed plugin said (`code`, `msg`, `details`), or the raw text where it is no such JSON.
pub fn failure(stdout: &[u8], stderr: &[u8]) -> String {
    let said: Option<Value> = serde_json::from_slice(stdout).ok();
    let field = |key: &str| {
        said.as_ref().and_then(|v| v.get(key)).and_then(Value::as_str).unwrap_or_default()
    };
    let text = match (field("msg"), field("details")) {
        ("", "") => {
            let raw = if stdout.is_empty() { stderr } else { stdout };
            String::from_utf8_lossy(raw).trim().to_owned()
        }
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}: {details}"),
    };
    let text: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2_000).collect();
    if text.is_empty() { "it said nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{addresses, failure};
    use serde_json::json;

    #[test]
    fn addresses_come_without_their_prefix() {
        let result =
            json!({"ips":[{"address":"10.0.0.2/24"},{"address":"fd00::2/64"},{"address":"x"}]});
        let texts: Vec<_> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.2", "fd00::2"]);
    }

    #[test]
    fn a_plugins_words_are_passed_on() {
        assert_eq!(failure(br#"{"code":7,"msg":"no","details":"because"}"#, b""), "no: because");
        assert_eq!(failure(b"", b"panic\n"), "panic");
        assert_eq!(failure(b"", b""), "it said nothing");
    }
}
