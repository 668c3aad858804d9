//! User namespaces: write the maps of a new one, make one that nobody lives in, become its root, hand a
//! file to somebody in it. What a process makes after it joined one belongs to that namespace. Which maps
//! are allowed is decided elsewhere.

use crate::credentials;
use crate::error::SysError;
use crate::fd;
use crate::namespace::{self, Namespace};
use crate::process::{self, CloneInto, Cloned};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use std::os::fd::{AsFd, OwnedFd};

/// One line of a map (`user_namespaces(7)`): `count` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id in the namespace.
    pub inside: u32,
    /// First id of the parent namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Writes the maps of the user namespace that process `pid` has just been cloned into. Once only; the
/// caller has `CAP_SETUID` and `CAP_SETGID` in the parent namespace. Needs `/proc` of the caller's PID
/// namespace.
pub fn write_maps(pid: i32, users: IdMap, groups: IdMap) -> Result<(), SysError> {
    for (file, map) in [("uid_map", users), ("gid_map", groups)] {
        let path = format!("/proc/{pid}/{file}");
        let open = rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(SysError::rustix("open", || path.clone()))?;
        let IdMap { inside, outside, count } = map;
        let line = format!("{inside} {outside} {count}\n");
        // Named by its line: what the kernel refuses is the map.
        fd::write_all(&open, line.as_bytes())
            .map_err(|error| SysError::new("write", format!("{path}, {line:?}"), error.errno()))?;
    }
    Ok(())
}

/// A user namespace with these maps and no process in it, for id-mapped mounts. The process that it takes
/// to make one allocates nothing, so threads of the caller do not matter.
pub fn make(users: IdMap, groups: IdMap) -> Result<OwnedFd, SysError> {
    let (input, output) = fd::pipe()?;
    match process::clone3(CloneInto { new: &[Namespace::User], ..CloneInto::default() })? {
        Cloned::Child => {
            drop(output);
            // Until the caller has what it wants, or is gone.
            drop(fd::read(&input, &mut [0]));
            process::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            let made = write_maps(pid, users, groups)
                .and_then(|()| namespace::of_process(pid, Namespace::User));
            drop(output);
            process::reap_blocking(pidfd)?;
            made
        }
    }
}

/// Becomes user and group 0 of the namespace that this process has joined, without further groups; every
/// capability stays. The process stays closed to its new equals: they may neither trace it nor open what it
/// holds. Allocates nothing.
pub fn become_root() -> Result<(), SysError> {
    credentials::set_groups(&[])?;
    credentials::set_gid(0)?;
    credentials::set_uid(0)?;
    // A change of ids sets it to what /proc/sys/fs/suid_dumpable says.
    credentials::not_dumpable()
}

/// `fchownat(AT_EMPTY_PATH)`: gives what is behind a descriptor to a user and a group; `O_PATH` will do.
pub fn give(what: impl AsFd, uid: u32, gid: u32) -> Result<(), SysError> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(&what, c"", user, group, AtFlags::EMPTY_PATH)
        .map_err(SysError::rustix("fchownat", || fd::describe(&what)))
}

#[cfg(test)]
mod tests {
    use super::{IdMap, become_root, make};
    use crate::credentials;
    use crate::error::Errno;
    use crate::fd;
    use crate::mount::{self, Change, Flags, NewFs};
    use crate::namespace::{self, Namespace};
    use crate::process::{CloneInto, Cloned, clone3, exit_now, reap_blocking};
    use rustix::fs::{Mode, OFlags, mkdirat, openat, statat};
    use std::os::fd::OwnedFd;

    const MAP: IdMap = IdMap { inside: 0, outside: 70_000, count: 1_000 };

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }

    fn namespace_of_map() -> OwnedFd {
        make(MAP, IdMap { outside: 80_000, ..MAP }).unwrap()
    }

    #[test]
    fn root_a_map_that_the_kernel_refuses_is_told_with_its_line() {
        if !root() {
            return;
        }
        let error = make(IdMap { count: 0, ..MAP }, MAP).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains("0 70000 0"), "{error}");
    }

    #[test]
    fn root_a_process_that_joined_has_every_right_over_what_it_makes_and_none_outside() {
        if !root() {
            return;
        }
        let user = namespace_of_map();
        match clone3(CloneInto::default()).unwrap() {
            Cloned::Parent { pidfd, .. } => assert_eq!(reap_blocking(pidfd).unwrap(), 0),
            Cloned::Child => {
                let act = || {
                    namespace::join(&user, &[Namespace::User])?;
                    become_root()?;
                    namespace::unshare(&[Namespace::Uts])?;
                    namespace::set_hostname(b"inside")?;
                    let all = credentials::capabilities()?.effective;
                    Ok(all == credentials::bounding()?.known && credentials::ids_are(0, 0)?)
                };
                let done: Result<bool, crate::error::SysError> = act();
                let fresh = NewFs::open(c"overlay").is_err();
                exit_now(i32::from(!(done.unwrap_or(false) && fresh)))
            }
        }
    }

    #[test]
    fn root_an_overlay_of_mapped_layers_shows_their_owners_inside_and_writes_them_outside() {
        if !root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let base = fd_of(folder.path());
        for name in ["lower", "upper", "work"] {
            mkdirat(&base, name, Mode::RWXU | Mode::XOTH | Mode::ROTH).unwrap();
        }
        std::fs::write(folder.path().join("lower/file"), "x").unwrap();
        std::fs::create_dir(folder.path().join("lower/folder")).unwrap();
        std::os::unix::fs::chown(folder.path().join("upper"), Some(70_000), Some(80_000)).unwrap();
        std::os::unix::fs::chown(folder.path().join("lower/file"), Some(5), Some(6)).unwrap();
        let user = namespace_of_map();
        let change = Change { id_map: Some(std::os::fd::AsFd::as_fd(&user)), ..Change::default() };
        let path = |name: &str| {
            std::ffi::CString::new(folder.path().join(name).to_str().unwrap()).unwrap()
        };
        let lower = mount::clone_path(&path("lower"), false).unwrap();
        mount::change(&lower, change).unwrap();
        let fs = NewFs::open(c"overlay").unwrap();
        fs.descriptor(c"lowerdir+", &lower).unwrap();
        fs.text(c"upperdir", &path("upper")).unwrap();
        fs.text(c"workdir", &path("work")).unwrap();
        let merged = fs.mount(Flags::NONE).unwrap();
        let seen = statat(&merged, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!((seen.st_uid, seen.st_gid), (70_005, 80_006));
        // Its root may make files beside, also in a folder that only the layer has.
        match clone3(CloneInto::default()).unwrap() {
            Cloned::Parent { pidfd, .. } => assert_eq!(reap_blocking(pidfd).unwrap(), 0),
            Cloned::Child => {
                let act = || -> Result<(), rustix::io::Errno> {
                    namespace::join(&user, &[Namespace::User]).unwrap();
                    become_root().unwrap();
                    let make = OFlags::CREATE | OFlags::WRONLY;
                    openat(&merged, "a", make, Mode::RUSR)?;
                    openat(&merged, "folder/b", make, Mode::RUSR).map(drop)
                };
                exit_now(act().map_or_else(rustix::io::Errno::raw_os_error, |()| 0))
            }
        }
        // Copied up it keeps its owner; the layer keeps its own.
        let open = OFlags::WRONLY | OFlags::APPEND;
        fd::write_all(openat(&merged, "file", open, Mode::empty()).unwrap(), b"y").unwrap();
        let owner = |name: &str| {
            let meta = std::fs::metadata(folder.path().join(name)).unwrap();
            (std::os::unix::fs::MetadataExt::uid(&meta), meta.len())
        };
        assert_eq!((owner("upper/file"), owner("lower/file")), ((70_005, 2), (5, 1)));
    }

    fn fd_of(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }
}
