//! The daemon's own folders: they hold the files of every image, setuid programs among them, so nobody
//! else may go in (`reliability.md` class L). Owns making them, checking whose they are and narrowing
//! their mode at every start; what is inside is the business of the rooms that use them.

use crate::config::keys::Config;
use crate::error::DaemonError;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes both folders ours, before anything is put into them.
pub(crate) fn prepare(config: &Config) -> Result<(), DaemonError> {
    own(&config.root, 0o700)?;
    own(&config.state, state_mode(config))
}

/// Other users who may connect must be able to reach a socket that stands in the state folder.
fn state_mode(config: &Config) -> u32 {
    let others = !config.socket.uids.is_empty() || !config.socket.gids.is_empty();
    if others && config.socket.path.parent() == Some(&config.state) { 0o711 } else { 0o700 }
}

fn own(path: &Path, mode: u32) -> Result<(), DaemonError> {
    let failed = |source| DaemonError::Folder { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let (found, we) =
        (fs::metadata(path).map_err(failed)?, fs::metadata("/proc/self").map_err(failed)?);
    if found.uid() != we.uid() {
        return Err(DaemonError::Stranger { path: path.to_owned(), uid: found.uid() });
    }
    if found.mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::prepare;
    use crate::config::keys::Config;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nobody_else_may_go_in_unless_the_socket_is_there_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let (root, state) = (folder.path().join("a/root"), folder.path().join("state"));
        let mut config = Config { root, state, ..Config::default() };
        fs::create_dir(&config.state).unwrap();
        fs::set_permissions(&config.state, fs::Permissions::from_mode(0o1777)).unwrap();
        let modes = |config: &Config| {
            prepare(config).unwrap();
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            (mode(&config.root), mode(&config.state))
        };
        config.socket.gids = vec![7];
        assert_eq!(modes(&config), (0o700, 0o700));
        config.socket.path = config.state.join("wherry.sock");
        assert_eq!(modes(&config), (0o700, 0o711));
        config.socket.gids.clear();
        assert_eq!(modes(&config), (0o700, 0o700));
    }

    #[test]
    fn a_strangers_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        // Root alone can give a folder away.
        if std::os::unix::fs::chown(folder.path(), Some(65_534), None).is_err() {
            return;
        }
        let config = Config { root: folder.path().to_owned(), ..Config::default() };
        let text = prepare(&config).unwrap_err().to_string();
        assert!(text.contains("belongs to user 65534"), "{text}");
    }
}
