//! Reads the configuration: the main file, then the files of `conf.d` beside it by name; tables are
//! merged, other values replace. Each file is checked alone first, so that a mistake is told with its
//! file and line. What the keys mean is `keys.rs`.

use super::keys::Config;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Where the main file is unless a flag says otherwise.
pub(crate) const MAIN: &str = "/etc/wherry/config.toml";

/// Every key with its default and its words.
pub(crate) const DEFAULTS: &str = include_str!("default.toml");

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A file or folder cannot be read.
    #[error("read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file holds something that is not allowed; the text names line and column.
    #[error("{}: {}", path.display(), text.trim_end())]
    Refused { path: PathBuf, text: String },
}

/// The configuration of a main file and its `conf.d`. A missing main file is the defaults, unless
/// somebody asked for it by name.
pub(crate) fn load(named: Option<&Path>) -> Result<Config, LoadError> {
    let main = named.unwrap_or(Path::new(MAIN));
    let mut merged = Table::new();
    match read(main) {
        Err(LoadError::Read { source, .. })
            if named.is_none() && source.kind() == io::ErrorKind::NotFound => {}
        other => merge(&mut merged, other?),
    }
    for path in drop_ins(main)? {
        merge(&mut merged, read(&path)?);
    }
    // Cannot fail after each file was read alone, but for a file that turns a table into a value.
    Config::deserialize_table(merged)
        .map_err(|text| LoadError::Refused { path: main.to_owned(), text })
}

impl Config {
    fn deserialize_table(table: Table) -> Result<Self, String> {
        table.try_into().map_err(|error| error.to_string())
    }
}

/// One file, checked alone.
fn read(path: &Path) -> Result<Table, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Table, LoadError> {
    let refused = |error: toml::de::Error| LoadError::Refused {
        path: path.to_owned(),
        text: error.to_string(),
    };
    toml::from_str::<Config>(text).map_err(refused)?;
    toml::from_str(text).map_err(refused)
}

/// `conf.d/*.toml` beside the main file, by name.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let folder = main.with_file_name("conf.d");
    let failed = |source| LoadError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Tables are merged key by key; anything else replaces.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULTS, load, parse};
    use crate::config::keys::Config;
    use std::fs;
    use std::path::Path;

    /// The refusal of a text.
    fn check(text: &str) -> String {
        parse(Path::new("/etc/wherry/config.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        assert_eq!(toml::from_str::<Config>(DEFAULTS).unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_printed_with_words() {
        let names = format!("{:#?}", Config::default());
        for name in names.lines().filter_map(|line| line.trim().split_once(": ")) {
            let key = name.0;
            // Fields of values that are one text in the file.
            if ["address", "prefix", "resource", "soft", "hard"].contains(&key) {
                continue;
            }
            let at = DEFAULTS.lines().position(|line| {
                line.starts_with(&format!("{key} = ")) || line == format!("[{key}]")
            });
            let at = at.unwrap_or_else(|| panic!("{key} is not in default.toml"));
            let line = DEFAULTS.lines().nth(at).unwrap();
            let above = DEFAULTS.lines().nth(at.saturating_sub(1)).unwrap();
            assert!(line.starts_with('[') || above.starts_with('#'), "{key} has no words");
        }
    }

    #[test]
    fn refusals_name_file_line_and_what_is_allowed() {
        let refusals = [
            "root = 3",
            "rooot = \"/x\"",
            "[streaming]\naddress = \"0.0.0.0:0\"",
            "[streaming]\naddress = \"localhost:0\"",
            "[streaming]\nidle_timeout = \"0s\"",
            "[streaming]\nidle_timeout = \"1001h\"",
            "[streaming]\nkey = \"key.pem\"",
            "[cni]\nbin_dirs = [\"/x\", \"bin\"]",
            "[socket]\nmode = \"0666\"",
            "[socket]\nmodes = \"0660\"",
            "\n\n[cgroup]\ndriver = \"cgroupsv2\"",
            "[network]\nsubnet = \"10.89.0.1/16\"",
            "[network]\nbridge = \"a/b\"",
            "[limits]\nworker_threads = 0",
            "[containers]\ndefault_ulimits = [\"nofile=10:5\"]",
            "[log]\nlevel = \"shim=loud\"",
            "[metrics]\nlisten = \"9464\"",
            "[traces]\nendpoint = \"https://collector:4317\"",
            "[log",
        ];
        insta::assert_snapshot!(refusals.map(check).join("\n\n"));
    }

    #[test]
    fn drop_ins_are_merged_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("config.toml");
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(&main, "root = \"/a\"\n[cni]\nconf_dir = \"/c\"\nbin_dirs = [\"/x\", \"/y\"]\n")
            .unwrap();
        fs::write(folder.path().join("conf.d/20.toml"), "[cni]\nbin_dirs = [\"/z\"]\n").unwrap();
        fs::write(folder.path().join("conf.d/10.toml"), "root = \"/b\"\n[cni]\nbin_dirs = []\n")
            .unwrap();
        fs::write(folder.path().join("conf.d/notes.txt"), "not toml").unwrap();
        let config = load(Some(&main)).unwrap();
        assert_eq!(config.root, Path::new("/b"));
        assert_eq!(config.cni.conf_dir, Path::new("/c"));
        assert_eq!(config.cni.bin_dirs, [Path::new("/z")]);
    }

    #[test]
    fn a_named_file_must_exist() {
        let text = load(Some(Path::new("/nonexistent/wherry.toml"))).unwrap_err().to_string();
        assert_eq!(text, "read the configuration /nonexistent/wherry.toml");
    }
}
