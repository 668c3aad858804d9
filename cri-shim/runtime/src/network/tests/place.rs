//! Where a test of the network happens: a thread with its own network and mount namespaces, and folders
//! that go with it; and what is left there afterwards.

use crate::network::builtin::BuiltinConfig;
use crate::network::netns::Inside;
use crate::network::{Attachment, Network, NetworkConfig, cache};
use shim_model::id::SandboxId;
use shim_model::sandbox::config::SandboxConfig;
use shim_sys::namespace::{self, Namespace};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A place for one test.
#[derive(Debug)]
pub(super) struct Place {
    folder: tempfile::TempDir,
}

/// Runs a test in a place of its own; tells why where it cannot be made.
pub(super) fn run<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F + Send) {
    if std::fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        eprintln!("skipped: needs root");
        return;
    }
    std::thread::scope(|scope| scope.spawn(|| apart(test)).join().unwrap());
}

fn apart<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F) {
    namespace::unshare(&[Namespace::Network, Namespace::Mount]).unwrap();
    shell("mount --make-rprivate / && mount -t sysfs sysfs /sys && ip link set lo up");
    // Threads that the runtime starts for blocking work inherit this thread's namespaces.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(Place { folder: tempfile::tempdir().unwrap() }));
}

impl Place {
    /// A folder of this place.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The network of this place, with this configuration list and folders of plugins.
    pub(super) fn network(&self, list: &str, bin_dirs: &[&Path]) -> Network {
        self.network_with(list, bin_dirs, true)
    }

    /// The same; `native` = in process where that can be.
    pub(super) fn network_with(&self, list: &str, bin_dirs: &[&Path], native: bool) -> Network {
        if !list.is_empty() {
            std::fs::write(self.folder("conf").join("10-test.conflist"), list).unwrap();
        }
        Network::start(NetworkConfig {
            conf_dir: self.folder("conf"),
            bin_dirs: bin_dirs.iter().map(|path| path.to_path_buf()).collect(),
            cache_dir: self.folder("cni"),
            native,
            netns_dir: self.folder("netns"),
            builtin: BuiltinConfig {
                bridge: "wherry0".to_owned(),
                subnet: "10.88.0.0/16".to_owned(),
                data_dir: self.folder("own"),
            },
        })
        .unwrap()
    }

    /// Pin of a pod's namespace.
    pub(super) fn pin(&self, pod: &Attachment) -> PathBuf {
        self.folder("netns").join(pod.id.as_str())
    }

    /// The leases of a network, as `ADDRESS OWNER`.
    pub(super) fn leases(&self, network: &str) -> Vec<String> {
        let folder = self.folder("cni/networks").join(network);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<String> = entries
            .filter(|entry| entry.file_name().to_string_lossy().parse::<IpAddr>().is_ok())
            .map(|entry| {
                let owner = std::fs::read_to_string(entry.path()).unwrap();
                format!("{} {}", entry.file_name().to_string_lossy(), owner.lines().next().unwrap())
            })
            .collect();
        found.sort();
        found
    }

    /// The kept result of a pod.
    pub(super) fn kept(&self, pod: &Attachment) -> Option<cache::Kept> {
        cache::find(&self.folder("cni"), &pod.id, None)
    }

    /// A program of `sh` in this place's folder of plugins; `$CNI_COMMAND` is logged to `calls`.
    pub(super) fn program(&self, name: &str, script: &str) -> PathBuf {
        let (bin, calls) = (self.folder("bin"), self.folder("calls").join(name));
        let text = format!("#!/bin/sh\necho $CNI_COMMAND >>{}\n{script}\n", calls.display());
        std::fs::write(bin.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), mode).unwrap();
        bin
    }

    /// How often a program was called with this verb.
    pub(super) fn calls(&self, name: &str, verb: &str) -> usize {
        let text = std::fs::read_to_string(self.folder("calls").join(name)).unwrap_or_default();
        text.lines().filter(|line| *line == verb).count()
    }

    /// Nothing of any pod is left: no link but loopback and bridges, lease, result, pin.
    pub(super) async fn is_clean(&self) {
        let mut left = String::new();
        // The kernel removes the links of a namespace beside us.
        for _ in 0..200 {
            left = self.left();
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("left behind: {left}");
    }

    fn left(&self) -> String {
        let mut left: Vec<String> =
            shell("ip -o link show type veth").lines().map(str::to_owned).collect();
        for folder in ["netns", "cni/results", "own/ports"] {
            let entries = std::fs::read_dir(self.folder(folder)).unwrap().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left.extend(self.leases(""));
        for network in std::fs::read_dir(self.folder("cni/networks")).unwrap().flatten() {
            left.extend(self.leases(&network.file_name().to_string_lossy()));
        }
        let own = std::fs::read_dir(self.folder("own/leases")).unwrap().flatten();
        let own = own.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(own.filter(|name| name.parse::<IpAddr>().is_ok()));
        left.join("\n")
    }
}

/// The n-th pod.
pub(super) fn pod(n: u8, change: impl FnOnce(&mut SandboxConfig)) -> (Attachment, SandboxConfig) {
    let mut config = SandboxConfig::default();
    change(&mut config);
    (Attachment::of(&SandboxId::from_random([n; 32]), &config).unwrap(), config)
}

/// Makes and attaches the n-th pod; its addresses.
pub(super) async fn start(network: &Network, n: u8) -> (Attachment, Vec<IpAddr>) {
    let (pod, config) = pod(n, |_| {});
    drop(network.namespace(&pod.id).await.unwrap());
    let ips = network.add(&pod, &config).await.unwrap().ips;
    (pod, ips)
}

/// Takes a pod away.
pub(super) async fn stop(network: &Network, pod: &Attachment) {
    network.del(pod).await.unwrap();
    network.remove_namespace(&pod.id).await.unwrap();
}

/// Those pods and no others.
pub(super) fn pods(known: &[&Attachment]) -> Arc<crate::network::gc::Pods> {
    let known: BTreeSet<SandboxId> = known.iter().map(|pod| pod.id.clone()).collect();
    Arc::new(move || Some(known.clone()))
}

/// Works in the namespace that is pinned at a path.
pub(super) fn within<T: Send>(pin: &Path, work: impl FnOnce() -> T + Send) -> T {
    let inside = Inside::enter(pin).unwrap();
    std::thread::scope(|scope| {
        let inside = &inside;
        let worker = scope.spawn(move || {
            namespace::join(inside.namespace(), &[Namespace::Network]).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

/// True if a connection from one namespace to an address of another carries a byte.
pub(super) fn reaches(from: &Path, to: &Path, ip: IpAddr) -> bool {
    use std::io::{Read, Write};
    let listener = within(to, || std::net::TcpListener::bind((ip, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let client =
        within(from, || std::net::TcpStream::connect_timeout(&target, Duration::from_secs(5)));
    let Ok(mut client) = client else { return false };
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).is_ok()
}

/// The namespace of the test itself.
pub(super) fn node() -> &'static Path {
    Path::new("/proc/thread-self/ns/net")
}

/// Runs a command line in this place; its output.
pub(super) fn shell(line: &str) -> String {
    let done = Command::new("/bin/sh").args(["-c", line]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{line}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}
