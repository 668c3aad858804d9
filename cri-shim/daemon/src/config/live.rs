//! Which keys a running daemon takes over when it is told to read its configuration again (SIGHUP).
//! Pure: compares two configurations. Whoever holds the log's handle acts on it.

use super::keys::{Config, Level};

/// What a new configuration means for a daemon that runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The new rule for the log.
    pub(crate) level: Option<Level>,
    /// Tables and keys that count only after a restart.
    pub(crate) later: Vec<&'static str>,
}

/// Compares what runs with what the files say now.
pub(crate) fn compare(old: &Config, new: &Config) -> Changes {
    let Config {
        root,
        state,
        create_missing_host_paths,
        enable_unprivileged_ports,
        enable_unprivileged_icmp,
        socket,
        streaming,
        cni,
        network,
        registry,
        images,
        containers,
        cgroup,
        cdi,
        nri,
        log,
        metrics,
        traces,
        limits,
        handlers,
    } = new;
    let same = [
        ("root", *root == old.root),
        ("state", *state == old.state),
        ("create_missing_host_paths", *create_missing_host_paths == old.create_missing_host_paths),
        ("enable_unprivileged_ports", *enable_unprivileged_ports == old.enable_unprivileged_ports),
        ("enable_unprivileged_icmp", *enable_unprivileged_icmp == old.enable_unprivileged_icmp),
        ("socket", *socket == old.socket),
        ("streaming", *streaming == old.streaming),
        ("cni", *cni == old.cni),
        ("network", *network == old.network),
        ("registry", *registry == old.registry),
        ("images", *images == old.images),
        ("containers", *containers == old.containers),
        ("cgroup", *cgroup == old.cgroup),
        ("cdi", *cdi == old.cdi),
        ("nri", *nri == old.nri),
        ("log.format", log.format == old.log.format),
        ("metrics", *metrics == old.metrics),
        ("traces", *traces == old.traces),
        ("limits", *limits == old.limits),
        ("handlers", *handlers == old.handlers),
    ];
    Changes {
        level: (log.level != old.log.level).then(|| log.level.clone()),
        later: same.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, compare};
    use crate::config::keys::{Config, Level};

    #[test]
    fn only_the_log_level_changes_live() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(compare(&old, &new), Changes { level: None, later: Vec::new() });
        new.log.level = Level("debug".to_owned());
        new.cni.bin_dirs = Vec::new();
        let level = Some(Level("debug".to_owned()));
        assert_eq!(compare(&old, &new), Changes { level, later: vec!["cni"] });
    }
}
