//! Leases of addresses as the host-local plugin keeps them: a file per address whose first line is the
//! pod's id, the last one given in `last_reserved_ip.0`, and a lock over both.

use crate::error::RuntimeError;
use shim_model::id::SandboxId;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Addresses of one network.
#[derive(Clone, Debug)]
pub struct Range {
    /// First address of the network.
    pub network: Ipv4Addr,
    /// Its bits.
    pub prefix: u8,
}

impl Range {
    /// Reads `10.88.0.0/16`.
    pub fn parse(text: &str) -> Option<Self> {
        let (network, prefix) = text.split_once('/')?;
        Some(Self {
            network: network.parse().ok()?,
            prefix: prefix.parse().ok().filter(|bits| (8..=29).contains(bits))?,
        })
    }

    /// The first usable address: the gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().saturating_add(1))
    }

    /// Usable addresses after the gateway, beginning behind `last`, each once.
    fn candidates(&self, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.network.to_bits().saturating_add(2);
        let end =
            self.network.to_bits() | u32::MAX.checked_shr(self.prefix.into()).unwrap_or_default();
        let after = last.map_or(first, |ip| ip.to_bits().saturating_add(1));
        let start = if (first..end).contains(&after) { after } else { first };
        (start..end).chain(first..start).map(Ipv4Addr::from_bits)
    }
}

/// The leases below a folder, locked while this lives.
#[derive(Debug)]
pub struct Leases {
    folder: PathBuf,
    _lock: File,
}

impl Leases {
    /// Opens and locks the folder.
    pub fn lock(folder: &Path) -> Result<Self, RuntimeError> {
        fs::create_dir_all(folder).map_err(RuntimeError::file("make the folder", folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(RuntimeError::file("open", &path))?;
        lock.lock().map_err(RuntimeError::file("lock", path))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The address of a pod: the one it has, or the next free one.
    pub fn take(&self, range: &Range, id: &SandboxId) -> Result<Ipv4Addr, RuntimeError> {
        if let Some(known) = self.all().into_iter().find(|(_, owner)| owner == id.as_str()) {
            return Ok(known.0);
        }
        let last = fs::read_to_string(self.folder.join("last_reserved_ip.0"))
            .ok()
            .and_then(|ip| ip.trim().parse().ok());
        for address in range.candidates(last) {
            let path = self.folder.join(address.to_string());
            let file = File::options().write(true).create_new(true).open(&path);
            let mut file = match file {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(RuntimeError::file("write the lease", &path))?,
            };
            // The plugin's own form: id, carriage return, line feed, interface.
            file.write_all(format!("{id}\r\neth0").as_bytes())
                .map_err(RuntimeError::file("write the lease", path))?;
            let marker = self.folder.join("last_reserved_ip.0");
            fs::write(&marker, address.to_string()).map_err(RuntimeError::file("write", marker))?;
            return Ok(address);
        }
        let why = format!("every address of {}/{} is taken", range.network, range.prefix);
        Err(RuntimeError::Network { doing: "give a pod an address".to_owned(), why })
    }

    /// Frees the addresses of a pod.
    pub fn release(&self, id: &str) -> Result<(), RuntimeError> {
        for (address, _) in self.all().into_iter().filter(|(_, owner)| owner == id) {
            let path = self.folder.join(address.to_string());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(RuntimeError::file("free the lease", path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Owners that are not among these.
    pub fn strangers(&self, known: &BTreeSet<SandboxId>) -> Vec<String> {
        let is_known = |owner: &String| SandboxId::parse(owner).is_ok_and(|id| known.contains(&id));
        self.all().into_iter().map(|(_, owner)| owner).filter(|owner| !is_known(owner)).collect()
    }

    fn all(&self) -> Vec<(Ipv4Addr, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let address = entry.file_name().to_str()?.parse().ok()?;
                let owner =
                    fs::read_to_string(entry.path()).ok()?.lines().next()?.trim().to_owned();
                Some((address, owner))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Leases, Range};
    use shim_model::id::SandboxId;

    #[test]
    fn addresses_go_round_and_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let range = Range::parse("10.1.0.0/29").unwrap();
        let leases = Leases::lock(dir.path()).unwrap();
        let id = |n: u8| SandboxId::from_random([n; 32]);
        let given: Vec<_> =
            (1..=5).map(|n| leases.take(&range, &id(n)).unwrap().to_string()).collect();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert!(leases.take(&range, &id(6)).is_err());
        assert_eq!(leases.take(&range, &id(2)).unwrap().to_string(), "10.1.0.3");
        leases.release(id(2).as_str()).unwrap();
        assert_eq!(leases.take(&range, &id(7)).unwrap().to_string(), "10.1.0.3");
        let text = std::fs::read_to_string(dir.path().join("10.1.0.2")).unwrap();
        assert_eq!(text, format!("{}\r\neth0", id(1)));
    }
}
