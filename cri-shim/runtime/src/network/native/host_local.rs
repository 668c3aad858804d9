//! Leases of addresses as the host-local plugin keeps them: a file per address whose text is the pod's id
//! and its interface, the last address given of each set in `last_reserved_ip.N`, and a lock over both.
//! Which address comes next is decided by `shim-model`.

use super::veth::POD_END;
use crate::error::RuntimeError;
use shim_model::cni::lease::{Lease, RangeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Between the id and the interface in a lease.
const BETWEEN: &str = "\r\n";

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

    /// Locks the folder if there is one.
    pub fn existing(folder: &Path) -> Result<Option<Self>, RuntimeError> {
        folder.exists().then(|| Self::lock(folder)).transpose()
    }

    /// An address of each set for a new pod; all or none. The pod's id was never used before.
    pub fn take(&self, sets: &[RangeSet], id: &str) -> Result<Vec<Lease>, RuntimeError> {
        let mut taken = Vec::new();
        for (place, set) in sets.iter().enumerate() {
            match self.next(set, place, id) {
                Ok(lease) => taken.push(lease),
                Err(error) => {
                    for lease in taken {
                        let _the_first_error_counts =
                            fs::remove_file(self.file(lease.address.addr()));
                    }
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    fn next(&self, set: &RangeSet, place: usize, id: &str) -> Result<Lease, RuntimeError> {
        let marker = self.folder.join(format!("last_reserved_ip.{place}"));
        let last = fs::read_to_string(&marker).ok().and_then(|ip| ip.trim().parse().ok());
        for lease in set.candidates(last) {
            let address = lease.address.addr();
            let path = self.file(address);
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = match file {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(RuntimeError::file("write the lease", &path))?,
            };
            file.write_all(format!("{id}{BETWEEN}{POD_END}").as_bytes())
                .map_err(RuntimeError::file("write the lease", path))?;
            write(&marker, &address.to_string())?;
            return Ok(lease);
        }
        let why = "every address of its range is taken".to_owned();
        Err(RuntimeError::Network { doing: "give a pod an address".to_owned(), why })
    }

    /// True if this address is the pod's.
    pub fn is_of(&self, address: IpAddr, id: &str) -> bool {
        owner(&self.file(address)).is_some_and(|owner| owner == id)
    }

    /// Frees the addresses of a pod. `likely` are looked at first: then nothing else has to be read.
    /// Otherwise those of nobody go too: whoever began to take one held the lock, and was killed.
    pub fn release(&self, id: &str, likely: &[IpAddr]) -> Result<(), RuntimeError> {
        if !likely.is_empty() && likely.iter().all(|address| self.is_of(*address, id)) {
            return likely.iter().try_for_each(|address| self.free(*address));
        }
        let gone = self.all().filter(|(_, owner)| owner == id || owner.is_empty());
        gone.map(|(address, _)| address).try_for_each(|address| self.free(address))
    }

    /// Every lease: the address, and the id of its pod.
    pub fn all(&self) -> impl Iterator<Item = (IpAddr, String)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            Some((address, owner(&entry.path())?))
        })
    }

    fn free(&self, address: IpAddr) -> Result<(), RuntimeError> {
        let path = self.file(address);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(RuntimeError::file("free the lease", path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn file(&self, address: IpAddr) -> PathBuf {
        self.folder.join(address.to_string())
    }
}

/// The id in a lease of the pod's first interface; versions before 0.7 wrote the id alone.
fn owner(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (id, interface) = text.trim().split_once(BETWEEN).unwrap_or((text.trim(), POD_END));
    (interface == POD_END).then(|| id.to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), RuntimeError> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(RuntimeError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::Leases;
    use serde_json::json;
    use shim_model::cni::lease::RangeSet;

    fn set(subnet: &str) -> RangeSet {
        RangeSet::of(&serde_json::from_value::<Vec<_>>(json!([{"subnet": subnet}])).unwrap())
            .unwrap()
    }

    #[test]
    fn addresses_go_round_and_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let sets = [set("10.1.0.0/29")];
        let leases = Leases::lock(dir.path()).unwrap();
        let take =
            |id: &str| leases.take(&sets, id).map(|given| given[0].address.addr().to_string());
        let given: Vec<_> = ["a", "b", "c", "d", "e"].map(|id| take(id).unwrap()).into();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert!(take("f").is_err());
        leases.release("b", &["10.1.0.9".parse().unwrap()]).unwrap();
        assert_eq!(take("g").unwrap(), "10.1.0.3");
        assert_eq!(std::fs::read_to_string(dir.path().join("10.1.0.2")).unwrap(), "a\r\neth0");
        let last = std::fs::read_to_string(dir.path().join("last_reserved_ip.0")).unwrap();
        assert_eq!(last, "10.1.0.3");
    }

    #[test]
    fn an_address_that_somebody_died_over_is_freed() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::lock(dir.path()).unwrap();
        std::fs::write(dir.path().join("10.1.0.2"), "").unwrap();
        leases.take(&[set("10.1.0.0/29")], "a").unwrap();
        assert!(leases.is_of("10.1.0.3".parse().unwrap(), "a"));
        leases.release("b", &[]).unwrap();
        let left: Vec<_> = leases.all().collect();
        assert_eq!(left, [("10.1.0.3".parse().unwrap(), "a".to_owned())]);
    }

    #[test]
    fn a_pod_gets_an_address_of_each_set_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::lock(dir.path()).unwrap();
        let both = [set("10.1.0.0/24"), set("fd00::/126")];
        let given = leases.take(&both, "a").unwrap();
        assert_eq!(given[1].address.to_string(), "fd00::2/126");
        leases.take(&both, "b").unwrap();
        assert!(leases.take(&both, "c").is_err());
        assert!(leases.all().all(|(_, owner)| owner != "c"));
        leases.release("a", &["10.1.0.2".parse().unwrap()]).unwrap();
        leases.release("a", &[]).unwrap();
        assert!(leases.all().all(|(_, owner)| owner == "b"));
    }
}
