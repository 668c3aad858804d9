//! The first process of a machine of the cluster: what it makes of its namespaces before its components
//! run. It relies on `space` for the namespaces and on `up` for the wire.

use super::components::{NETWORK_LIST, control, control_files, node, node_files};
use super::groups;
use super::keep::keep;
use super::layout::{CONTROL, Home, MOST_NODES, Machine, Network, Settings, pods_of};
use super::space::{run, until};
use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Settings of the whole machine that a kubelet changes; it is given files of its own in their place.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Never returns but with an error.
pub fn first(home: &Home, machine: Machine) -> anyhow::Result<Infallible> {
    let settings = fs::read(home.settings()).context("read the settings")?;
    let settings: Settings = serde_json::from_slice(&settings).context("read the settings")?;
    sethostname(machine.to_string()).context("name the machine")?;
    run(&["ip", "link", "set", "lo", "up"])?;
    match machine {
        Machine::Control => begin_control(home, &settings),
        Machine::Node(number) => begin_node(home, &settings, number),
    }
}

fn begin_control(home: &Home, settings: &Settings) -> anyhow::Result<Infallible> {
    run(&["ip", "link", "add", "cluster0", "type", "bridge"])?;
    run(&["ip", "addr", "add", &format!("{CONTROL}/24"), "dev", "cluster0"])?;
    run(&["ip", "link", "set", "cluster0", "up"])?;
    for number in 1..=MOST_NODES {
        route(number)?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let packets through")?;
    let folder = home.of(Machine::Control);
    for (name, text) in control_files(home, settings) {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    keep(&folder, control(home, settings))
}

/// Pods of a node are behind it.
fn route(number: u8) -> anyhow::Result<()> {
    let gateway = Machine::Node(number).address().to_string();
    run(&["ip", "route", "add", &pods_of(number), "via", &gateway])
}

fn begin_node(home: &Home, settings: &Settings, number: u8) -> anyhow::Result<Infallible> {
    let machine = Machine::Node(number);
    let folder = home.of(machine);
    for (name, text) in node_files(home, settings, number) {
        let file = folder.join(&name);
        fs::create_dir_all(file.parent().unwrap_or(&folder))?;
        fs::write(&file, text).with_context(|| format!("write {name}"))?;
    }
    let hierarchies = groups::here()?;
    groups::join(&hierarchies, home, machine)?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("begin a cgroup namespace")?;
    let root = folder.join("root");
    make_root(home, settings, &root)?;
    groups::mount(&hierarchies, &root.join("node"))?;
    change_root(&root.join("node"))?;
    own_folders(&folder, settings)?;
    for sysctl in SYSCTLS {
        own_sysctl(&folder, sysctl, None)?;
    }
    own_sysctl(&folder, "kernel/random/boot_id", Some(fresh_id()?))?;
    until("a wire", Duration::from_secs(30), || {
        fs::read_to_string("/proc/self/net/dev").ok()?.contains("eth0:").then_some(())
    })?;
    run(&["ip", "addr", "add", &format!("{}/24", machine.address()), "dev", "eth0"])?;
    run(&["ip", "link", "set", "eth0", "up"])?;
    run(&["ip", "route", "add", "default", "via", &CONTROL.to_string()])?;
    match settings.network {
        Network::Plain => {
            for other in (1..=settings.nodes).filter(|other| *other != number) {
                route(other)?;
            }
            fs::copy(folder.join("network.conflist"), NETWORK_LIST).context("write the network")?;
        }
        // Pods of one bridge answer each other through their Services only if netfilter sees it.
        Network::Flannel => drop(fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1")),
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let packets through")?;
    keep(&folder, node(home, settings, number))
}

/// The machine's files with a layer in memory above, at `root/node`: what a node writes the machine never
/// sees. What is changed from outside, or lies on other file systems, is bound into it.
fn make_root(home: &Home, settings: &Settings, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root)?;
    let at = |name: &str| root.join(name).display().to_string();
    run(&["mount", "-t", "tmpfs", "-o", "mode=755", "root", &root.display().to_string()])?;
    for name in ["upper", "work", "node"] {
        fs::create_dir(root.join(name))?;
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", at("upper"), at("work"));
    run(&["mount", "-t", "overlay", "-o", &layers, "node", &at("node")])?;
    run(&["mount", "-t", "proc", "proc", &at("node/proc")])?;
    run(&["mount", "-t", "sysfs", "sysfs", &at("node/sys")])?;
    run(&["mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", &at("node/sys/fs/cgroup")])?;
    run(&["mount", "--rbind", "/dev", &at("node/dev")])?;
    let program = std::env::current_exe().context("find this program")?;
    let programs = [Some(settings.peers.as_path()), settings.wherry.parent(), program.parent()];
    let bound = programs.into_iter().flatten().chain([home.0.as_path()]);
    for folder in bound {
        let relative = folder.strip_prefix("/").context("a folder without a whole path")?;
        let place = root.join("node").join(relative);
        fs::create_dir_all(&place)?;
        run(&["mount", "--rbind", &folder.display().to_string(), &place.display().to_string()])?;
    }
    Ok(())
}

/// `pivot_root(8)`; the old root goes.
fn change_root(node: &Path) -> anyhow::Result<()> {
    let old = node.join(".old");
    fs::create_dir(&old)?;
    run(&["pivot_root", &node.display().to_string(), &old.display().to_string()])?;
    std::env::set_current_dir("/")?;
    run(&["umount", "--lazy", "/.old"])?;
    fs::remove_dir("/.old")?;
    // Kubelets and volumes need mounts that go from one namespace to another.
    run(&["mount", "--make-rshared", "/"])
}

/// What grows lies on the machine's disk, below the cluster's home; what must not outlive a boot in memory.
fn own_folders(folder: &Path, settings: &Settings) -> anyhow::Result<()> {
    run(&["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"])?;
    for place in ["/run/lock", "/run/netns", "/etc/cni/net.d", "/opt/cni/bin"] {
        fs::create_dir_all(place)?;
    }
    let runtime = format!("/var/lib/{}", settings.runtime.name());
    for place in ["/var/lib/kubelet", "/var/lib/cni", "/var/log", &runtime] {
        let own = folder.join("disk").join(place.trim_start_matches('/'));
        fs::create_dir_all(&own)?;
        fs::create_dir_all(place)?;
        run(&["mount", "--bind", &own.display().to_string(), place])?;
        run(&["mount", "--make-rshared", place])?;
    }
    for foreign in fs::read_dir("/etc/cni/net.d")?.flatten() {
        fs::remove_file(foreign.path())?;
    }
    Ok(())
}

fn own_sysctl(folder: &Path, sysctl: &str, value: Option<String>) -> anyhow::Result<()> {
    let real = Path::new("/proc/sys").join(sysctl);
    let Ok(now) = fs::read_to_string(&real) else { return Ok(()) };
    let own = folder.join("sysctl").join(sysctl);
    fs::create_dir_all(own.parent().unwrap_or(folder))?;
    fs::write(&own, value.unwrap_or(now))?;
    run(&["mount", "--bind", &own.display().to_string(), &real.display().to_string()])
}

/// A boot of the node has an id of its own (`random(4)`).
fn fresh_id() -> anyhow::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").context("read a fresh id")
}
