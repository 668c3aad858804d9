//! Flags of `wherry serve` over the configuration of the files. Pure, but for paths that are relative to
//! where the command was given.

use super::keys::{Cni, Config};
use super::load::{LoadError, load};
use super::nri::Nri;
use crate::args::ServeArgs;
use std::path::{Path, PathBuf};

/// The configuration of files and flags.
pub(crate) fn configuration(flags: &ServeArgs) -> Result<Config, LoadError> {
    let mut config = load(flags.config.as_deref())?;
    over(&mut config, flags)?;
    Ok(config)
}

fn over(config: &mut Config, flags: &ServeArgs) -> Result<(), LoadError> {
    let set = |flag: &Option<PathBuf>, key: &mut PathBuf| match flag {
        Some(path) => absolute(path).map(|path| *key = path),
        None => Ok(()),
    };
    set(&flags.socket, &mut config.socket.path)?;
    set(&flags.root, &mut config.root)?;
    set(&flags.state, &mut config.state)?;
    set(&flags.cni_conf_dir, &mut config.cni.conf_dir)?;
    set(&flags.registry_config, &mut config.registry.config_dir)?;
    if !flags.cni_bin_dir.is_empty() {
        config.cni.bin_dirs =
            flags.cni_bin_dir.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    }
    // A moved instance keeps its network results and its plugins to itself, so that several run side by side.
    if flags.root.is_some() && config.cni.cache_dir == Cni::default().cache_dir {
        config.cni.cache_dir = config.root.join("cni");
    }
    if flags.state.is_some() && config.nri.socket_path == Nri::default().socket_path {
        config.nri.socket_path = config.state.join("nri.sock");
    }
    Ok(())
}

/// A flag's path is the shell's: relative to where the command was given.
fn absolute(path: &Path) -> Result<PathBuf, LoadError> {
    std::path::absolute(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::over;
    use crate::args::ServeArgs;
    use crate::config::keys::Config;
    use std::path::Path;

    #[test]
    fn flags_win_and_a_moved_root_takes_its_network_results_along() {
        let mut config = Config::default();
        let flags = ServeArgs {
            socket: Some("/x/s".into()),
            root: Some("/x/root".into()),
            cni_bin_dir: vec!["/a".into(), "/b".into()],
            ..ServeArgs::default()
        };
        over(&mut config, &flags).unwrap();
        assert_eq!(config.socket.path, Path::new("/x/s"));
        assert_eq!(config.state, Path::new("/run/wherry"));
        assert_eq!(config.cni.cache_dir, Path::new("/x/root/cni"));
        assert_eq!(config.cni.bin_dirs, [Path::new("/a"), Path::new("/b")]);
    }
}
