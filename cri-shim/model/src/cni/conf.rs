//! CNI configurations: read a list (or a single plugin as a list of one), and make each plugin's own
//! standard input: name, version, the previous result, and only the capability arguments it declares.

use crate::kind::Refused;
use crate::sandbox::config::{PortMapping, Protocol};
use serde_json::{Map, Value, json};

/// Versions that we speak, oldest first.
pub const VERSIONS: [&str; 6] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.1.1"];

/// One network: its plugins in order.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfList {
    /// Name of the network.
    pub name: String,
    /// Version that every plugin is spoken to in.
    pub version: String,
    /// Configuration of each plugin, as it stands in the file.
    pub plugins: Vec<Map<String, Value>>,
    /// `disableCheck`.
    pub disable_check: bool,
    /// The file's text, kept for DEL after the file changed.
    pub text: String,
}

impl ConfList {
    /// Reads a `.conflist`, or a `.conf`/`.json` with a single plugin.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refuse =
            |found: String, allowed: &str| Refused::new("CNI configuration", found, allowed);
        let value: Value = serde_json::from_str(text).map_err(|e| refuse(e.to_string(), "JSON"))?;
        let Value::Object(object) = value else {
            return Err(refuse("no object".to_owned(), "an object"));
        };
        let string =
            |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = string("name");
        let legal = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !legal {
            return Err(refuse(
                format!("name {name}"),
                "a name of letters, digits, dots, dashes and underscores",
            ));
        }
        let version = match string("cniVersion") {
            none if none.is_empty() => "0.3.1".to_owned(),
            some => some,
        };
        if !VERSIONS.contains(&version.as_str()) {
            return Err(refuse(format!("cniVersion {version}"), &VERSIONS.join(", ")));
        }
        let plugins = match object.get("plugins") {
            Some(Value::Array(list)) => {
                list.iter().filter_map(|plugin| plugin.as_object().cloned()).collect()
            }
            Some(_) => Vec::new(),
            None => vec![object.clone()],
        };
        if plugins.is_empty() {
            return Err(refuse("no plugins".to_owned(), "at least one plugin"));
        }
        for plugin in &plugins {
            let typ = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            if typ.is_empty() || typ.contains('/') || typ.starts_with('.') {
                return Err(refuse(format!("plugin type {typ}"), "the file name of a plugin"));
            }
        }
        let disable_check = object.get("disableCheck").and_then(Value::as_bool).unwrap_or_default();
        Ok(Self { name, version, plugins, disable_check, text: text.to_owned() })
    }

    /// Type of the n-th plugin.
    pub fn plugin_type(&self, index: usize) -> &str {
        self.plugins
            .get(index)
            .and_then(|plugin| plugin.get("type"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Standard input of the n-th plugin.
    pub fn input(
        &self,
        index: usize,
        capabilities: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Value {
        let mut input = self.plugins.get(index).cloned().unwrap_or_default();
        input.insert("name".to_owned(), json!(self.name));
        input.insert("cniVersion".to_owned(), json!(self.version));
        let declared = input.remove("capabilities");
        let declared = declared.as_ref().and_then(Value::as_object);
        let given: Map<String, Value> = capabilities
            .iter()
            .filter(|(key, _)| {
                declared.is_some_and(|known| known.get(*key).and_then(Value::as_bool) == Some(true))
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !given.is_empty() {
            input.insert("runtimeConfig".to_owned(), Value::Object(given));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(input)
    }
}

/// Capability arguments of a pod: ports that are published, bandwidth from the usual annotations.
pub fn capabilities(ports: &[PortMapping], bandwidth: Option<Value>) -> Map<String, Value> {
    let mut given = Map::new();
    let published: Vec<Value> = ports
        .iter()
        .filter(|port| port.host_port > 0)
        .map(|port| {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": port.host_ip})
        })
        .collect();
    if !published.is_empty() {
        given.insert("portMappings".to_owned(), Value::Array(published));
    }
    if let Some(bandwidth) = bandwidth {
        given.insert("bandwidth".to_owned(), bandwidth);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::{ConfList, capabilities};
    use crate::sandbox::config::PortMapping;
    use serde_json::json;

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;

    #[test]
    fn only_declared_capabilities_reach_a_plugin() {
        let list = ConfList::parse(LIST).unwrap();
        let ports = [PortMapping { host_port: 80, container_port: 8080, ..PortMapping::default() }];
        let given = capabilities(&ports, None);
        assert_eq!(list.input(0, &given, None).get("runtimeConfig"), None);
        let portmap = list.input(1, &given, Some(&json!({"ips":[]})));
        assert_eq!(portmap["runtimeConfig"]["portMappings"][0]["hostPort"], 80);
        assert!(portmap.get("capabilities").is_none() && portmap.get("prevResult").is_some());
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one() {
        let list = ConfList::parse(r#"{"name":"x","type":"ptp"}"#).unwrap();
        assert_eq!((list.plugin_type(0), list.version.as_str()), ("ptp", "0.3.1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"name":"x"}"#,
            r#"{"name":"../x","type":"a"}"#,
            r#"{"name":"x","type":"../../bin/sh"}"#,
            r#"{"name":"x","type":"a","cniVersion":"9.0.0"}"#,
            r#"{"name":"x","plugins":[]}"#,
        ] {
            assert!(ConfList::parse(bad).is_err(), "{bad}");
        }
    }
}
