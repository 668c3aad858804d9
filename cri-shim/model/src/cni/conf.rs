//! CNI configurations: read a list (or a single plugin as a list of one), and make each plugin's own
//! standard input: name, version, the previous result, and only the capability arguments it declares.
//! Pure: the files, and those of the folder named after the network, are read by `shim-runtime`.

use crate::kind::Refused;
use serde_json::{Map, Value, json};

/// Versions of the specification that we speak, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What a single plugin's file says where it names no version.
const OLDEST_LIST: &str = "0.3.1";

/// One network: its plugins in order.
#[expect(clippy::struct_excessive_bools, reason = "switches of the specification, each by itself")]
#[derive(Clone, Debug, PartialEq)]
pub struct ConfList {
    /// Name of the network.
    pub name: String,
    /// Version that every plugin is spoken to in.
    pub version: String,
    /// Configuration of each plugin, as it stands in the file.
    pub plugins: Vec<Map<String, Value>>,
    /// `disableCheck`: CHECK must not be called.
    pub disable_check: bool,
    /// `disableGC`: GC must not be called, because another runtime may have attachments of its own.
    pub disable_gc: bool,
    /// `loadOnlyInlinedPlugins`: a folder with the network's name has no further plugins.
    pub only_inlined: bool,
    /// The list as text, kept for DEL after the file changed.
    pub text: String,
}

impl ConfList {
    /// Reads a `.conflist`, or a `.conf`/`.json` with a single plugin.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        Self::with(text, &[])
    }

    /// Reads a list and appends plugins of other files, unless it takes only its own
    /// (`loadOnlyInlinedPlugins`). [`Self::text`] then holds them all.
    pub fn with(text: &str, more: &[Value]) -> Result<Self, Refused> {
        let value: Value = serde_json::from_str(text).map_err(|e| refuse(e.to_string(), "JSON"))?;
        let Value::Object(mut object) = value else {
            return Err(refuse("no object", "an object"));
        };
        let name = name(&object)?;
        let version = version(&object)?;
        let only_inlined = switch(&object, "loadOnlyInlinedPlugins")?;
        let mut plugins = inlined(&object)?;
        let mut text = text.to_owned();
        if !only_inlined && !more.is_empty() {
            for plugin in more {
                plugins.push(plugin_of(plugin)?);
            }
            object.insert("plugins".to_owned(), json!(plugins));
            text = Value::Object(object.clone()).to_string();
        }
        if plugins.is_empty() {
            return Err(refuse("no plugins", "at least one plugin"));
        }
        Ok(Self {
            name,
            version,
            plugins,
            disable_check: switch(&object, "disableCheck")?,
            disable_gc: switch(&object, "disableGC")?,
            only_inlined,
            text,
        })
    }

    /// True from this version of the specification on; both are among [`VERSIONS`].
    pub fn at_least(&self, version: &str) -> bool {
        let place = |text: &str| VERSIONS.iter().position(|known| *known == text);
        place(&self.version) >= place(version)
    }

    /// Type of the n-th plugin.
    pub fn plugin_type(&self, index: usize) -> &str {
        self.plugins
            .get(index)
            .and_then(|plugin| plugin.get("type"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// True if any plugin takes this capability argument.
    pub fn declares(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// Standard input of the n-th plugin for ADD, DEL and CHECK.
    pub fn input(
        &self,
        index: usize,
        capabilities: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Value {
        let mut input = self.plugins.get(index).cloned().unwrap_or_default();
        input.insert("name".to_owned(), json!(self.name));
        input.insert("cniVersion".to_owned(), json!(self.version));
        let given = declared(&input, capabilities);
        input.remove("capabilities");
        if !given.is_empty() {
            input.insert("runtimeConfig".to_owned(), Value::Object(given));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(input)
    }

    /// Standard input of the n-th plugin for STATUS, and for GC with the attachments that stay: pairs of
    /// container id and interface.
    pub fn input_of_all(&self, index: usize, stay: Option<&[(String, String)]>) -> Value {
        let mut input = self.input(index, &Map::new(), None);
        if let (Some(stay), Value::Object(object)) = (stay, &mut input) {
            let list: Vec<Value> = stay
                .iter()
                .map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}))
                .collect();
            object.insert("cni.dev/valid-attachments".to_owned(), json!(list));
            // The name in the first text of 1.1.0, which libcni still sends as well.
            object.insert("cni.dev/attachments".to_owned(), json!(list));
        }
        input
    }
}

/// Capability arguments that this plugin declares, of those that are given.
pub fn declared(plugin: &Map<String, Value>, given: &Map<String, Value>) -> Map<String, Value> {
    given
        .iter()
        .filter(|(key, _)| declares(plugin, key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn declares(plugin: &Map<String, Value>, capability: &str) -> bool {
    let declared = plugin.get("capabilities").and_then(Value::as_object);
    declared.is_some_and(|known| known.get(capability).and_then(Value::as_bool) == Some(true))
}

fn refuse(found: impl AsRef<str>, allowed: &str) -> Refused {
    Refused::new("CNI configuration", found, allowed)
}

fn name(object: &Map<String, Value>) -> Result<String, Refused> {
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
    let legal = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if legal {
        return Ok(name.to_owned());
    }
    Err(refuse(format!("name {name}"), "a name of letters, digits, dots, dashes and underscores"))
}

/// The newest version that the list has (`cniVersion`, `cniVersions`) and we speak.
fn version(object: &Map<String, Value>) -> Result<String, Refused> {
    let one = object.get("cniVersion").and_then(Value::as_str).filter(|text| !text.is_empty());
    let more = object.get("cniVersions").and_then(Value::as_array);
    let offered: Vec<&str> =
        one.into_iter().chain(more.into_iter().flatten().filter_map(Value::as_str)).collect();
    if offered.is_empty() {
        return Ok(OLDEST_LIST.to_owned());
    }
    VERSIONS
        .iter()
        .rfind(|known| offered.contains(known))
        .map(|known| (*known).to_owned())
        .ok_or_else(|| refuse(format!("cniVersion {}", offered.join(", ")), &VERSIONS.join(", ")))
}

/// A switch: a boolean, or one as text as libcni takes it.
fn switch(object: &Map<String, Value>, key: &str) -> Result<bool, Refused> {
    match object.get(key) {
        None => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(refuse(format!("{key} {other}"), "true or false")),
    }
}

/// The plugins in the list itself; a file with a `type` and no list is one plugin.
fn inlined(object: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, Refused> {
    match object.get("plugins") {
        Some(Value::Array(list)) => list.iter().map(plugin_of).collect(),
        Some(other) => Err(refuse(format!("plugins {other}"), "a list of objects")),
        None if object.contains_key("type") => Ok(vec![plugin_of(&Value::Object(object.clone()))?]),
        None => Ok(Vec::new()),
    }
}

fn plugin_of(value: &Value) -> Result<Map<String, Value>, Refused> {
    let plugin = value
        .as_object()
        .ok_or_else(|| refuse(format!("plugin {value}"), "an object with a type"))?;
    let typ = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
    if typ.is_empty() || typ.contains('/') || typ.starts_with('.') {
        return Err(refuse(format!("plugin type {typ}"), "the file name of a plugin"));
    }
    Ok(plugin.clone())
}

#[cfg(test)]
mod tests {
    use super::ConfList;
    use serde_json::{Map, Value, json};

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;

    fn ports() -> Map<String, Value> {
        let ports = json!({"portMappings":[{"hostPort":80,"containerPort":8080}]});
        ports.as_object().unwrap().clone()
    }

    #[test]
    fn only_declared_capabilities_reach_a_plugin() {
        let list = ConfList::parse(LIST).unwrap();
        assert!(list.declares("portMappings") && !list.declares("mac"));
        assert_eq!(list.input(0, &ports(), None).get("runtimeConfig"), None);
        let portmap = list.input(1, &ports(), Some(&json!({"ips":[]})));
        assert_eq!(portmap["runtimeConfig"]["portMappings"][0]["hostPort"], 80);
        assert!(portmap.get("capabilities").is_none() && portmap.get("prevResult").is_some());
    }

    #[test]
    fn gc_is_told_what_stays() {
        let list = ConfList::parse(LIST).unwrap();
        let stay = [("abc".to_owned(), "eth0".to_owned())];
        let told = json!([{"containerID":"abc","ifname":"eth0"}]);
        assert_eq!(list.input_of_all(0, Some(&stay))["cni.dev/valid-attachments"], told);
        let status = list.input_of_all(1, None);
        assert_eq!(status, json!({"type":"portmap","name":"net","cniVersion":"1.0.0"}));
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one() {
        let list = ConfList::parse(r#"{"name":"x","type":"ptp"}"#).unwrap();
        assert_eq!((list.plugin_type(0), list.version.as_str()), ("ptp", "0.3.1"));
    }

    #[test]
    fn the_newest_version_of_those_offered_is_spoken() {
        let version = |keys: &str| {
            let text = format!(r#"{{"name":"x","type":"a"{keys}}}"#);
            ConfList::parse(&text).map(|list| list.version)
        };
        assert_eq!(version(r#","cniVersion":"0.4.0""#).unwrap(), "0.4.0");
        assert_eq!(
            version(r#","cniVersion":"0.4.0","cniVersions":["1.0.0","1.1.0","9.0.0"]"#).unwrap(),
            "1.1.0"
        );
        assert!(version(r#","cniVersions":["9.0.0"]"#).is_err());
        let list = ConfList::parse(LIST).unwrap();
        assert!(list.at_least("0.4.0") && list.at_least("1.0.0") && !list.at_least("1.1.0"));
    }

    #[test]
    fn plugins_of_a_folder_are_appended_and_kept_for_later() {
        let more = [json!({"type":"tuning"})];
        let list = ConfList::with(LIST, &more).unwrap();
        assert_eq!(list.plugin_type(2), "tuning");
        assert_eq!(ConfList::parse(&list.text).unwrap().plugins, list.plugins);
        let alone = LIST.replace("\"net\"", "\"net\",\"loadOnlyInlinedPlugins\":true");
        assert_eq!(ConfList::with(&alone, &more).unwrap().plugins.len(), 2);
        assert_eq!(ConfList::with(r#"{"name":"x"}"#, &more).unwrap().plugins.len(), 1);
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
            r#"{"name":"x","plugins":["bridge"]}"#,
            r#"{"name":"x","type":"a","disableGC":1}"#,
        ] {
            assert!(ConfList::parse(bad).is_err(), "{bad}");
        }
    }
}
