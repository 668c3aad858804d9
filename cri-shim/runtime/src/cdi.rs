//! Devices of vendors (CDI): the folders with their files, read when they have changed, and a container's
//! devices made complete with what the node has. A file that cannot be used is told and stops no other; a
//! device that two files of one folder define is nobody's. What a file means is the model's.

use crate::container::devices;
use crate::error::RuntimeError;
use parking_lot::Mutex;
use shim_model::cdi::{File, Form, Name, RawEdits, RawNode};
use shim_model::edits::{EditMount, Edits, Hook};
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::spec::devices::HostDevice;
use shim_model::users::User;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The devices of this node; clones share everything.
#[derive(Clone, Debug)]
pub struct Cdi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folders: Vec<PathBuf>,
    known: Mutex<Known>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Known {
    seen: Seen,
    files: Vec<Arc<File>>,
    /// Which file has a device: its place in `files`, or why it cannot be had.
    devices: BTreeMap<Name, Result<usize, String>>,
    /// Files that cannot be used, and why.
    bad: BTreeMap<PathBuf, String>,
}

/// Name, change time and size of every file, by folder: what is compared.
type Seen = Vec<(usize, PathBuf, Option<SystemTime>, u64)>;

impl Cdi {
    /// Devices of these folders; those of a later folder replace those of an earlier one. Looks at them now
    /// and then, so that a bad file is told before somebody needs it.
    pub fn watch(folders: Vec<PathBuf>) -> Self {
        let cdi = Self(Arc::new(Inner { folders, known: Mutex::default() }));
        cdi.refresh();
        let weak = Arc::downgrade(&cdi.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(limits::CDI_LOOK).await;
                let Some(inner) = weak.upgrade() else { break };
                drop(tokio::task::spawn_blocking(move || Self(inner).refresh()).await);
            }
        });
        cdi
    }

    /// Files that cannot be used, and why.
    pub fn bad_files(&self) -> BTreeMap<PathBuf, String> {
        self.0.known.lock().bad.clone()
    }

    /// Reads the folders again if anything in them changed.
    fn refresh(&self) {
        let seen = look(&self.0.folders);
        let mut known = self.0.known.lock();
        if known.seen == seen {
            return;
        }
        let now = read(seen);
        for (path, why) in &now.bad {
            if known.bad.get(path) != Some(why) {
                tracing::warn!(path = %path.display(), why, "a file of CDI devices cannot be used");
            }
        }
        let count = now.devices.len();
        tracing::info!(devices = count, bad_files = now.bad.len(), "CDI devices were read");
        *known = now;
    }

    /// What these devices ask for, complete, for a process of this user. Blocking.
    pub fn edits(&self, names: &[Name], user: &User) -> Result<Edits, RuntimeError> {
        if names.is_empty() {
            return Ok(Edits::default());
        }
        self.refresh();
        let mut edits = Edits::default();
        let mut begun = BTreeSet::new();
        for name in names {
            let (place, file) = self.file_of(name)?;
            // What all devices of a file need comes once, before the first of them.
            if begun.insert(place) {
                add(&mut edits, name, &file.container_edits, user)?;
            }
            for device in file.devices.iter().filter(|device| device.name == name.device) {
                add(&mut edits, name, &device.container_edits, user)?;
            }
        }
        there(names, &edits)?;
        Ok(edits)
    }

    fn file_of(&self, name: &Name) -> Result<(usize, Arc<File>), Refused> {
        let known = self.0.known.lock();
        let unknown = || {
            let bad: Vec<String> = known
                .bad
                .iter()
                .map(|(path, why)| format!("; {} cannot be used: {why}", path.display()))
                .collect();
            let allowed = format!("a device of {}{}", list(&self.0.folders), bad.concat());
            Refused::new("config.CDI_devices", name.to_string(), allowed)
        };
        match known.devices.get(name) {
            Some(Ok(place)) => {
                known.files.get(*place).map(|file| (*place, Arc::clone(file))).ok_or_else(unknown)
            }
            Some(Err(why)) => {
                Err(Refused::new("config.CDI_devices", name.to_string(), why.clone()))
            }
            None => Err(unknown()),
        }
    }
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn look(folders: &[PathBuf]) -> Seen {
    let mut seen = Seen::new();
    for (index, folder) in folders.iter().enumerate() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| Form::of(path).is_some()).collect();
        paths.sort();
        paths.truncate(limits::CDI_FILES);
        seen.extend(paths.into_iter().map(|path| {
            let meta = fs::metadata(&path).ok();
            let time = meta.as_ref().and_then(|meta| meta.modified().ok());
            (index, path, time, meta.map_or(0, |meta| meta.len()))
        }));
    }
    seen
}

fn read(seen: Seen) -> Known {
    let mut known = Known::default();
    let mut owner: BTreeMap<Name, usize> = BTreeMap::new();
    for (folder, path, _, size) in &seen {
        let file = match file(path, *size) {
            Ok(file) => file,
            Err(why) => {
                known.bad.insert(path.clone(), why);
                continue;
            }
        };
        let place = known.files.len();
        for device in &file.devices {
            let name = Name { kind: file.kind.clone(), device: device.name.clone() };
            let clash = owner.insert(name.clone(), *folder) == Some(*folder);
            let found = if clash {
                Err(format!("one that a single file defines: {} does too", path.display()))
            } else {
                Ok(place)
            };
            known.devices.insert(name, found);
        }
        known.files.push(Arc::new(file));
    }
    known.seen = seen;
    known
}

fn file(path: &Path, size: u64) -> Result<File, String> {
    let form = Form::of(path).ok_or("its name ends neither in .json nor in .yaml")?;
    if size > u64::try_from(limits::CDI_FILE_BYTES).unwrap_or(u64::MAX) {
        return Err(format!("{size} bytes are more than 4 MiB"));
    }
    // A pipe would make us wait for its writer.
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    File::parse(form, &fs::read_to_string(path).map_err(|error| error.to_string())?)
}

fn add(edits: &mut Edits, name: &Name, raw: &RawEdits, user: &User) -> Result<(), Refused> {
    edits.add(name, raw)?;
    for node in &raw.device_nodes {
        let node = complete(name, node, user)?;
        edits.devices.retain(|known| known.path != node.path);
        edits.devices.push(node);
    }
    Ok(())
}

/// A node with its numbers. An owner that the file does not name is the container's user, who is to use it.
fn complete(name: &Name, raw: &RawNode, user: &User) -> Result<HostDevice, Refused> {
    let host = if raw.host_path.is_empty() { &raw.path } else { &raw.host_path };
    let refuse = |found: String, allowed: &str| {
        Err(Refused::new(format!("CDI device {name}: deviceNodes.hostPath"), found, allowed))
    };
    let (block, major, minor) = if !raw.r#type.is_empty() && raw.major != 0 {
        (raw.r#type == "b", raw.major, raw.minor)
    } else {
        let meta = match fs::metadata(host) {
            Ok(meta) => meta,
            Err(error) => return refuse(format!("{host}: {error}"), "a device of the node"),
        };
        let kind = meta.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            return refuse(host.clone(), "a device of the node");
        }
        let said = raw.r#type.as_str();
        if !said.is_empty() && (said == "b") != kind.is_block_device() {
            return refuse(format!("{host}, type {said}"), "the type that the node has");
        }
        let (major, minor) = devices::numbers(meta.rdev());
        (kind.is_block_device(), major, minor)
    };
    if raw.r#type == "p" {
        return refuse(format!("{host}, type p"), "no pipe: this release makes none");
    }
    Ok(HostDevice {
        path: raw.path.clone(),
        block,
        major,
        minor,
        mode: raw.file_mode.unwrap_or(0o666) & 0o777,
        uid: raw.uid.unwrap_or(user.uid),
        gid: raw.gid.unwrap_or(user.gid),
        access: if raw.permissions.is_empty() { "rwm".into() } else { raw.permissions.clone() },
    })
}

/// What an edit names must be on the node when the container is made (CDI, Error Handling).
fn there(names: &[Name], edits: &Edits) -> Result<(), Refused> {
    let field = || {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        format!("CDI devices {}", names.join(", "))
    };
    for EditMount { host_path, .. } in &edits.mounts {
        if let Some(path) = host_path.as_ref().filter(|path| !Path::new(path).exists()) {
            return Err(Refused::new(field(), path, "a path of the node"));
        }
    }
    for Hook { path, .. } in &edits.hooks {
        let runs = fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if !runs {
            return Err(Refused::new(field(), path, "a program of the node"));
        }
    }
    Ok(())
}

impl From<&Cdi> for serde_json::Value {
    /// As `crictl info` shows it.
    fn from(cdi: &Cdi) -> Self {
        let known = cdi.0.known.lock();
        let devices: Vec<String> = known.devices.keys().map(ToString::to_string).collect();
        serde_json::json!({"folders": cdi.0.folders, "devices": devices, "badFiles": known.bad})
    }
}

#[cfg(test)]
mod tests {
    use super::{Cdi, Inner, Known};
    use parking_lot::Mutex;
    use shim_model::cdi::Name;
    use shim_model::edits::Edits;
    use shim_model::users::User;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn cdi(folders: &[&Path]) -> Cdi {
        let folders = folders.iter().map(PathBuf::from).collect();
        Cdi(Arc::new(Inner { folders, known: Mutex::new(Known::default()) }))
    }

    fn file(kind: &str, device: &str, edits: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"{kind}","devices":[{{"name":"{device}","containerEdits":{edits}}}],
                "containerEdits":{{"env":["ALL=1"]}}}}"#
        )
    }

    fn ask(cdi: &Cdi, names: &[&str]) -> Result<Edits, String> {
        let names: Vec<Name> = names.iter().map(|name| Name::parse("x", name).unwrap()).collect();
        let user = User { uid: 7, gid: 8, ..User::default() };
        cdi.edits(&names, &user).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_found_and_completed_with_what_the_node_has() {
        let folder = tempfile::tempdir().unwrap();
        let edits = r#"{"deviceNodes":[{"path":"/dev/given","hostPath":"/dev/zero"},
            {"path":"/dev/said","type":"b","major":9,"minor":1,"uid":1,"permissions":"r"}]}"#;
        fs::write(folder.path().join("a.json"), file("v.com/c", "a", edits)).unwrap();
        let cdi = cdi(&[folder.path()]);
        let edits = ask(&cdi, &["v.com/c=a"]).unwrap();
        let [given, said] = <[_; 2]>::try_from(edits.devices).unwrap();
        assert_eq!((given.block, given.major, given.minor, given.mode), (false, 1, 5, 0o666));
        assert_eq!((given.uid, given.gid, given.access.as_str()), (7, 8, "rwm"));
        assert_eq!((said.block, said.major, said.uid, said.access.as_str()), (true, 9, 1, "r"));
        assert_eq!(edits.env, ["ALL=1"]);
        // One that appears later is seen at once, and what all of a file need comes once.
        fs::write(folder.path().join("b.json"), file("v.com/d", "b", "{}")).unwrap();
        assert_eq!(ask(&cdi, &["v.com/d=b", "v.com/c=a", "v.com/d=b"]).unwrap().env.len(), 2);
    }

    #[test]
    fn a_bad_file_stops_no_other_and_is_named_when_a_device_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad.json"), "{}").unwrap();
        fs::write(folder.path().join("good.json"), file("v.com/c", "a", "{}")).unwrap();
        fs::write(folder.path().join("notes.txt"), "nothing").unwrap();
        let cdi = cdi(&[folder.path()]);
        assert!(ask(&cdi, &["v.com/c=a"]).is_ok());
        let missing = ask(&cdi, &["v.com/c=b"]).unwrap_err();
        assert!(missing.contains("v.com/c=b") && missing.contains("bad.json"), "{missing}");
        assert_eq!(cdi.bad_files().len(), 1);
    }

    #[test]
    fn a_later_folder_wins_and_two_files_of_one_do_not() {
        let (first, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let with = |value: &str| file("v.com/c", "a", &format!(r#"{{"env":["FROM={value}"]}}"#));
        fs::write(first.path().join("a.json"), with("first")).unwrap();
        fs::write(later.path().join("a.json"), with("later")).unwrap();
        let cdi = cdi(&[first.path(), later.path()]);
        assert_eq!(ask(&cdi, &["v.com/c=a"]).unwrap().env, ["ALL=1", "FROM=later"]);
        fs::write(later.path().join("b.json"), with("again")).unwrap();
        let refused = ask(&cdi, &["v.com/c=a"]).unwrap_err();
        assert!(refused.contains("single file"), "{refused}");
    }

    #[test]
    fn what_is_not_on_the_node_is_refused_when_the_container_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            r#"{"deviceNodes":[{"path":"/dev/no-such-device"}]}"#,
            r#"{"deviceNodes":[{"path":"/etc/passwd"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/zero","type":"b"}]}"#,
            r#"{"mounts":[{"hostPath":"/no/such/path","containerPath":"/x"}]}"#,
            r#"{"hooks":[{"hookName":"createContainer","path":"/etc/passwd"}]}"#,
        ];
        for (index, edits) in cases.iter().enumerate() {
            let path = folder.path().join(format!("{index}.json"));
            fs::write(path, file("v.com/c", &index.to_string(), edits)).unwrap();
        }
        let cdi = cdi(&[folder.path()]);
        for index in 0..cases.len() {
            let refused = ask(&cdi, &[&format!("v.com/c={index}")]).unwrap_err();
            assert!(refused.contains("CDI device"), "{refused}");
        }
    }
}
