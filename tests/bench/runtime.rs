//! The runtimes that are compared: their names, their command lines and configurations. Every one sees
//! the same paths (`node.rs` gives each its own folders there), the same network configuration and the
//! same registry. Starts nothing.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One of the compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Runtime {
    /// As it comes: the network of the usual chains is made in process.
    Wherry,
    /// With `cni.native = false`: every plugin is executed, as the peers do it.
    WherryPlugins,
    /// containerd and runc.
    ContainerdRunc,
    /// containerd and crun.
    ContainerdCrun,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `wherry`.
    pub(crate) wherry: PathBuf,
    /// Folder of `containerd/`, `runc/` and `cni/`.
    pub(crate) peers: PathBuf,
    /// `crun`, behind the program that makes it accept containerd's bundles (`hack/peers/crun.c`).
    pub(crate) crun: PathBuf,
}

/// Where a runtime finds its configuration, as it sees it: below the folder that `/var/lib` is to it.
pub(crate) const SETUP: &str = "/var/lib/bench";

/// bridge and host-local without masquerade, the same for all.
const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "bench", "plugins": [
  {"type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.91.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
"#;

/// Where images are; see `images.rs`.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

/// The file name of what stands before crun; see `hack/peers/crun.c`.
pub(crate) const ADAPTER: &str = "crun-adapter";

impl Runtime {
    /// All, in the order of the columns.
    pub(crate) const ALL: [Self; 4] =
        [Self::Wherry, Self::WherryPlugins, Self::ContainerdRunc, Self::ContainerdCrun];

    /// Ratios are ratios to this one.
    pub(crate) const REFERENCE: Self = Self::ContainerdRunc;

    /// As options and JSON name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Wherry => "wherry",
            Self::WherryPlugins => "wherry-plugins",
            Self::ContainerdRunc => "containerd-runc",
            Self::ContainerdCrun => "containerd-crun",
        }
    }

    /// As the table's head names it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Wherry => "Wherry",
            Self::WherryPlugins => "Wherry, plugins executed",
            Self::ContainerdRunc => "containerd + runc",
            Self::ContainerdCrun => "containerd + crun",
        }
    }

    /// Its socket, as it sees it.
    pub(crate) const fn socket(self) -> &'static str {
        match self {
            Self::Wherry | Self::WherryPlugins => "/run/wherry/wherry.sock",
            Self::ContainerdRunc | Self::ContainerdCrun => "/run/containerd/containerd.sock",
        }
    }

    /// Writes its configuration to a folder that it will see as [`SETUP`].
    pub(crate) fn configure(self, folder: &Path, programs: &Programs) -> Result<()> {
        let own = match self {
            Self::Wherry => String::new(),
            Self::WherryPlugins => "[cni]\nnative = false\n".to_owned(),
            Self::ContainerdRunc => containerd(programs, &programs.peers.join("runc/runc")),
            Self::ContainerdCrun => containerd(programs, &programs.crun),
        };
        let host = format!("certs.d/{REGISTRY}");
        for (name, text) in [
            ("config.toml", own),
            ("net.d/10-bench.conflist", NETWORK.to_owned()),
            (&format!("{host}/hosts.toml"), format!("server = \"http://{REGISTRY}\"\n")),
        ] {
            let path = folder.join(name);
            let parent = path.parent().context("a file in a folder")?;
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Shell that runs in its namespaces first. Debian 12's crun refuses a hybrid machine whose v2
    /// hierarchy has a controller: it gets the v1 hierarchies alone.
    pub(crate) const fn prepare(self) -> &'static str {
        match self {
            Self::ContainerdCrun => "umount /sys/fs/cgroup/unified 2>/dev/null || true\n",
            Self::Wherry | Self::WherryPlugins | Self::ContainerdRunc => "",
        }
    }

    /// The daemon's command line.
    pub(crate) fn command(self, programs: &Programs) -> Vec<String> {
        let config = format!("{SETUP}/config.toml");
        match self {
            Self::Wherry | Self::WherryPlugins => vec![
                programs.wherry.display().to_string(),
                "serve".to_owned(),
                "--config".to_owned(),
                config,
                "--cni-conf-dir".to_owned(),
                format!("{SETUP}/net.d"),
                "--cni-bin-dir".to_owned(),
                programs.peers.join("cni").display().to_string(),
                "--registry-config".to_owned(),
                format!("{SETUP}/certs.d"),
            ],
            Self::ContainerdRunc | Self::ContainerdCrun => vec![
                programs.peers.join("containerd/containerd").display().to_string(),
                "--config".to_owned(),
                config,
            ],
        }
    }
}

/// containerd's defaults, but for what the machine and the comparison ask: our folders, cgroupfs, our
/// pause image, and no lowering of `oom_score_adj`, which needs `CAP_SYS_RESOURCE`.
fn containerd(programs: &Programs, oci_runtime: &Path) -> String {
    format!(
        "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '{SETUP}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{plugins}']
  conf_dir = '{SETUP}/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'bench'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bench]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.bench.options]
  BinaryName = '{oci_runtime}'
  SystemdCgroup = false
",
        pause = crate::images::PAUSE,
        plugins = programs.peers.join("cni").display(),
        oci_runtime = oci_runtime.display(),
    )
}
