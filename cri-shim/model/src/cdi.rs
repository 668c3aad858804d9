//! The Container Device Interface (its SPEC.md, up to 1.1): names of devices in a request, and the files
//! that say what a name means, as text. Unknown fields refuse a file, as the specification wants. What a
//! node's numbers are is not known here, for that takes a file system; what is done with the edits is
//! `edits.rs`.

use crate::kind::Refused;
use crate::limits;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Keys of annotations that name devices begin so.
const ANNOTATION: &str = "cdi.k8s.io/";
/// The newest version that is understood.
const NEWEST: (u64, u64) = (1, 1);

/// A device as requests name it: `vendor.com/class=device`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `vendor.com/class`.
    pub kind: String,
    /// Its name among those of the kind.
    pub device: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl Name {
    /// Reads one; `field` is where it stands.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refused> {
        let parts =
            text.split_once('=').filter(|(kind, device)| is_kind(kind) && is_device(device));
        let (kind, device) = parts.ok_or_else(|| {
            Refused::new(field, text, "the name of a CDI device: vendor.com/class=device")
        })?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// The devices of a container: those of its request, then those of its annotations, each once.
pub fn names(
    asked: &[String],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Name>, Refused> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    let fields = asked.iter().map(|text| ("config.CDI_devices".to_owned(), text.as_str()));
    let noted = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION)).flat_map(
        |(key, value)| {
            value.split(',').map(move |text| (format!("config.annotations[{key}]"), text.trim()))
        },
    );
    for (field, text) in fields.chain(noted) {
        let name = Name::parse(&field, text)?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    if names.len() > limits::CDI_DEVICES {
        let found = format!("{} devices", names.len());
        return Err(Refused::new("config.CDI_devices", found, "up to 1024 devices"));
    }
    Ok(names)
}

/// `vendor.com/class`: a vendor begins with a letter, both end with a letter or digit.
fn is_kind(text: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_word(text, |c| "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(vendor, class)| {
        vendor.len() <= 253 && class.len() <= 63 && word(vendor) && word(class)
    })
}

fn is_device(text: &str) -> bool {
    is_word(text, |c| "-_.:".contains(c))
}

/// Letters and digits, at both ends, and these between them.
fn is_word(text: &str, between: impl Fn(char) -> bool) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 253
        && text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || between(c))
}

/// A file of a vendor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    cdi_version: String,
    /// `vendor.com/class`.
    pub kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    /// What can be asked for.
    pub devices: Vec<Device>,
    /// Done once if any of the devices is asked for.
    #[serde(default)]
    pub container_edits: RawEdits,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name among those of the kind.
    pub name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    /// What it needs.
    #[serde(default)]
    pub container_edits: RawEdits,
}

/// What a container needs to use a device, as the file says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RawEdits {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<RawNode>,
    /// Mounts.
    pub mounts: Vec<RawMount>,
    /// Programs to run.
    pub hooks: Vec<RawHook>,
    /// Further groups; 0 means nothing.
    pub additional_gids: Vec<u32>,
    /// Cache and memory bandwidth shares; refused when asked for.
    pub intel_rdt: Option<serde_json::Value>,
    /// Network devices to move; refused when asked for.
    pub net_devices: Vec<serde_json::Value>,
}

/// A device node; what is missing is as on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RawNode {
    /// Where in the container.
    pub path: String,
    /// Where on the node; empty = the same.
    pub host_path: String,
    /// `b`, `c`, `u` (as `c`) or `p`; empty = as on the node.
    pub r#type: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Any of `r`, `w`, `m`; empty = all.
    pub permissions: String,
    /// Owner in the container.
    pub uid: Option<u32>,
    /// Group in the container.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RawMount {
    /// Where on the node.
    pub host_path: String,
    /// Where in the container.
    pub container_path: String,
    /// Options as in fstab(5).
    pub options: Vec<String>,
    /// Empty, `none`, `bind` or `tmpfs`.
    pub r#type: String,
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RawHook {
    /// When: `createContainer` and others.
    pub hook_name: String,
    /// Which, on the node.
    pub path: String,
    /// With which arguments, its own name first.
    pub args: Vec<String>,
    /// And which environment.
    pub env: Vec<String>,
    /// For how many seconds at most.
    pub timeout: Option<u32>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.json`
    Json,
    /// `.yaml`
    Yaml,
}

impl Form {
    /// By the ending of a file's name; `None` = no file of devices.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

impl File {
    /// Reads a file. The error is a sentence.
    pub fn parse(form: Form, text: &str) -> Result<Self, String> {
        if text.len() > limits::CDI_FILE_BYTES {
            return Err(format!("{} bytes are more than 4 MiB", text.len()));
        }
        let file: Self = match form {
            Form::Json => serde_json::from_str(text).map_err(|error| error.to_string())?,
            Form::Yaml => serde_saphyr::from_str(text).map_err(|error| error.to_string())?,
        };
        file.check().map_err(|refused| refused.to_string())?;
        Ok(file)
    }

    fn check(&self) -> Result<(), Refused> {
        let mut numbers =
            self.cdi_version.trim_start_matches('v').split('.').map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) <= NEWEST => {}
            _ => return Err(Refused::new("cdiVersion", &self.cdi_version, "0.1.0 to 1.1.x")),
        }
        if !is_kind(&self.kind) {
            return Err(Refused::new("kind", &self.kind, "vendor.com/class"));
        }
        if self.devices.is_empty() {
            return Err(Refused::new("devices", "none", "at least one"));
        }
        let mut known = BTreeSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            let field = format!("devices[{index}]");
            if !is_device(&device.name) || !known.insert(&device.name) {
                let allowed = "letters, digits and -_.: between them, each name once";
                return Err(Refused::new(format!("{field}.name"), &device.name, allowed));
            }
            device.container_edits.check(&format!("{field}.containerEdits"))?;
        }
        self.container_edits.check("containerEdits")
    }
}

impl RawEdits {
    /// What no request could mean. What this release does not do is refused when it is asked for.
    fn check(&self, field: &str) -> Result<(), Refused> {
        let absolute = |name: String, path: &str, allowed: &str| {
            let inside = path.starts_with('/')
                && path != "/"
                && !path.contains('\0')
                && !path.split('/').any(|part| part == "..");
            if inside {
                Ok(())
            } else {
                Err(Refused::new(format!("{field}.{name}"), path, allowed))
            }
        };
        let path = "an absolute path without ..";
        for (index, entry) in self.env.iter().enumerate() {
            if entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0') {
                return Err(Refused::new(format!("{field}.env[{index}]"), entry, "NAME=value"));
            }
        }
        for (index, node) in self.device_nodes.iter().enumerate() {
            absolute(format!("deviceNodes[{index}].path"), &node.path, path)?;
            if !node.host_path.is_empty() {
                absolute(format!("deviceNodes[{index}].hostPath"), &node.host_path, path)?;
            }
            let wrong = |name: &str, found: &str, allowed: &str| {
                Err(Refused::new(format!("{field}.deviceNodes[{index}].{name}"), found, allowed))
            };
            if !matches!(node.r#type.as_str(), "" | "b" | "c" | "u" | "p") {
                return wrong("type", &node.r#type, "b, c, u or p");
            }
            if !node.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
                return wrong("permissions", &node.permissions, "any of r, w and m");
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            absolute(format!("mounts[{index}].containerPath"), &mount.container_path, path)?;
            if mount.r#type != "tmpfs" {
                absolute(format!("mounts[{index}].hostPath"), &mount.host_path, path)?;
            }
        }
        for (index, hook) in self.hooks.iter().enumerate() {
            absolute(format!("hooks[{index}].path"), &hook.path, path)?;
            if !HOOKS.contains(&hook.hook_name.as_str()) || hook.timeout == Some(0) {
                let found = format!("{} with timeout {:?}", hook.hook_name, hook.timeout);
                let allowed = format!("one of {}, and a timeout above 0", HOOKS.join(", "));
                return Err(Refused::new(format!("{field}.hooks[{index}]"), found, allowed));
            }
        }
        Ok(())
    }
}

/// Hooks of the OCI runtime specification.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[cfg(test)]
mod tests {
    use super::{File, Form, Name, names};
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeMap;

    /// As `nvidia-ctk cdi generate` writes them, shortened.
    const YAML: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args:
    - nvidia-cdi-hook
    - update-ldcache
    - --folder
    - /usr/lib64
  mounts:
  - hostPath: /usr/lib64/libcuda.so.1
    containerPath: /usr/lib64/libcuda.so.1
    options: [ro, nosuid, nodev, bind]
"#;

    #[test]
    fn a_file_of_a_vendor_is_read_in_both_forms() {
        let yaml = File::parse(Form::Yaml, YAML).unwrap();
        assert_eq!((yaml.kind.as_str(), yaml.devices.len()), ("nvidia.com/gpu", 2));
        assert_eq!(yaml.container_edits.hooks[0].args[1], "update-ldcache");
        let json = r#"{"cdiVersion":"1.1.0","kind":"vendor.com/class","devices":[{"name":"a","annotations":{"x":"y"},
            "containerEdits":{"deviceNodes":[{"path":"/dev/a","type":"c","major":1,"minor":5,"fileMode":438,"uid":7}],
            "additionalGids":[0,5]}}]}"#;
        let json = File::parse(Form::Json, json).unwrap();
        assert_eq!(json.devices[0].container_edits.device_nodes[0].uid, Some(7));
        assert_eq!(json.devices[0].container_edits.additional_gids, [0, 5]);
    }

    #[test]
    fn what_could_be_misread_refuses_the_file() {
        let with = |edits: &str| {
            format!(
                r#"{{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{{"name":"a","containerEdits":{edits}}}]}}"#
            )
        };
        let bad = [
            (with(r#"{"devices":[]}"#), "unknown field"),
            (with(r#"{"env":["=x"]}"#), "env[0]"),
            (with(r#"{"deviceNodes":[{"path":"dev/x"}]}"#), "deviceNodes[0].path"),
            (with(r#"{"deviceNodes":[{"path":"/dev/../x"}]}"#), "deviceNodes[0].path"),
            (with(r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rx"}]}"#), "permissions"),
            (with(r#"{"deviceNodes":[{"path":"/dev/x","type":"x"}]}"#), "type"),
            (with(r#"{"mounts":[{"hostPath":"a","containerPath":"/a"}]}"#), "mounts[0].hostPath"),
            (with(r#"{"hooks":[{"hookName":"later","path":"/x"}]}"#), "hooks[0]"),
            (with(r#"{"hooks":[{"hookName":"createContainer","path":"x"}]}"#), "hooks[0].path"),
            (with("{}").replace("1.0.0", "2.0.0"), "cdiVersion"),
            (with("{}").replace("v.com/c", "v.com"), "kind"),
            (with("{}").replace("\"a\"", "\"-a\""), "devices[0].name"),
            (r#"{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[]}"#.into(), "devices"),
            ("[]".into(), "invalid length"),
        ];
        for (text, wanted) in bad {
            let error = File::parse(Form::Json, &text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(File::parse(Form::Json, &with("{}")).is_ok());
    }

    #[test]
    fn names_are_merged_each_once_and_in_order() {
        let asked = ["v.com/gpu=0".to_owned(), "v.com/gpu=1".to_owned()];
        let notes: BTreeMap<String, String> = [
            ("cdi.k8s.io/plugin_x".to_owned(), "v.com/gpu=1, v.com/net=a:b".to_owned()),
            ("other".to_owned(), "not a name".to_owned()),
        ]
        .into();
        let found: Vec<_> = names(&asked, &notes).unwrap().iter().map(Name::to_string).collect();
        assert_eq!(found, ["v.com/gpu=0", "v.com/gpu=1", "v.com/net=a:b"]);
    }

    #[test]
    fn a_name_that_is_none_is_refused_where_it_stands() {
        for bad in [
            "",
            "gpu",
            "v.com/gpu",
            "v.com=0",
            "v.com/gpu=",
            "1v/c=0",
            "v.com/gpu=a/b",
            "v.com/gpu=0 ",
        ] {
            assert!(Name::parse("x", bad).is_err(), "{bad}");
        }
        let notes = [("cdi.k8s.io/x".to_owned(), "nonsense".to_owned())].into();
        assert_eq!(names(&[], &notes).unwrap_err().field, "config.annotations[cdi.k8s.io/x]");
    }

    proptest! {
        #[test]
        fn hostile_files_never_break_the_parser(text in any::<String>()) {
            let _either = (File::parse(Form::Json, &text), File::parse(Form::Yaml, &text));
        }
    }
}
