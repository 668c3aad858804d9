//! Starts a cluster, wires its machines, waits for its nodes; reboots one; ends all.

use super::layout::{Home, Machine, Network, Settings, pods_of};
use super::space::{self, run, until};
use super::{Up, groups, images, pki};
use anyhow::{Context, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long all nodes may take to be ready.
const READY: Duration = Duration::from_mins(3);

/// From nothing to nodes that are ready.
#[expect(clippy::print_stdout, reason = "tells how far it is")]
pub fn up(home: &Home, wanted: Up) -> anyhow::Result<()> {
    if space::first(home, Machine::Control).is_some() {
        bail!("a cluster runs in {} already; hack/cluster down ends it", home.0.display());
    }
    let begun = Instant::now();
    let settings = prepared(home, wanted)?;
    space::begin(home, Machine::Control)?;
    for node in (1..=settings.nodes).map(Machine::Node) {
        space::begin(home, node)?;
        wire(home, node)?;
    }
    images::push(home, &settings)?;
    if settings.network == Network::Flannel {
        (1..=settings.nodes).try_for_each(|number| give_pods(home, number))?;
    }
    until("nodes that are ready", READY, || (ready(home) == settings.nodes).then_some(()))?;
    // Without it the first pod of a user would be refused.
    until("the default service account", READY, || {
        kubectl(home, &["get", "serviceaccount", "default"]).ok()
    })?;
    let took = begun.elapsed();
    let system = home.0.join("system.yaml");
    fs::write(&system, include_str!("files/system.yaml"))?;
    kubectl(home, &["apply", "-f", &system.display().to_string()])?;
    println!("{} node(s) ready after {:.1} s", settings.nodes, took.as_secs_f64());
    println!("Talk to it: hack/cluster kubectl get pods -A, or {}/kubectl", home.0.display());
    Ok(())
}

fn prepared(home: &Home, wanted: Up) -> anyhow::Result<Settings> {
    if home.0.exists() {
        // What a killed machine left.
        down(home)?;
    }
    fs::create_dir_all(&home.0).with_context(|| format!("make {}", home.0.display()))?;
    let kubernetes = match wanted.kubernetes.as_str() {
        "1.37" => "kubernetes".to_owned(),
        older => format!("kubernetes-{older}"),
    };
    let real =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("find {}", path.display()));
    let own = wanted.peers.join("../cluster-images");
    let images = wanted.images.unwrap_or(own);
    fs::create_dir_all(&images).with_context(|| format!("make {}", images.display()))?;
    let settings = Settings {
        nodes: wanted.nodes,
        runtime: wanted.runtime,
        proxy: wanted.proxy,
        network: wanted.network,
        peers: real(&wanted.peers)?,
        kubernetes,
        wherry: real(&wanted.wherry)?,
        images: real(&images)?,
    };
    fs::write(home.settings(), serde_json::to_vec_pretty(&settings)?)?;
    pki::write(home, settings.nodes).context("make keys and certificates")?;
    write_kubectl(home, &settings)?;
    Ok(settings)
}

/// A kubectl that needs no setting: it is in the cluster's network, with the files of whoever calls it.
fn write_kubectl(home: &Home, settings: &Settings) -> anyhow::Result<()> {
    let program = settings.peers.join(&settings.kubernetes).join("kubectl");
    let text = format!(
        "#!/bin/sh\nread -r first _ <'{0}/control/first'\nexport KUBECONFIG=\"${{KUBECONFIG:-{0}/pki/admin.kubeconfig}}\"\nexec nsenter --target \"$first\" --net -- '{1}' \"$@\"\n",
        home.0.display(),
        program.display(),
    );
    let file = home.0.join("kubectl");
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A veth pair between a node and the control plane's bridge; this network has nothing of it.
fn wire(home: &Home, node: Machine) -> anyhow::Result<()> {
    let pid = |machine| {
        let pid = space::first(home, machine).with_context(|| format!("{machine} does not run"));
        pid.map(|pid| pid.to_string())
    };
    let (control, theirs) = (pid(Machine::Control)?, pid(node)?);
    let name = format!("to-{node}");
    // The bridge is made by the control plane's first process.
    until("the cluster's bridge", Duration::from_secs(10), || {
        let mut show = space::inside(home, Machine::Control, true).ok()?;
        show.args(["ip", "link", "show", "cluster0"]);
        show.output().ok()?.status.success().then_some(())
    })?;
    run(&[
        "ip", "link", "add", &name, "netns", &control, "type", "veth", "peer", "name", "eth0",
        "netns", &theirs,
    ])?;
    let mut up = space::inside(home, Machine::Control, true)?;
    up.args(["ip", "link", "set", &name, "master", "cluster0", "up"]);
    if !up.status()?.success() {
        bail!("the wire of {node} could not be put on the bridge");
    }
    Ok(())
}

/// Says which addresses a node's pods have; flannel asks for it, and the control plane has routes to them.
fn give_pods(home: &Home, number: u8) -> anyhow::Result<()> {
    let node = Machine::Node(number).to_string();
    let patch =
        format!("{{\"spec\":{{\"podCIDR\":\"{0}\",\"podCIDRs\":[\"{0}\"]}}}}", pods_of(number));
    let patched = || kubectl(home, &["patch", "node", &node, "--patch", &patch]).ok();
    until("a node's registration", READY, patched).map(drop)
}

fn ready(home: &Home) -> u8 {
    let nodes = kubectl(home, &["get", "nodes", "--no-headers", "--request-timeout=2s"]);
    let nodes = nodes.unwrap_or_default();
    let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready"));
    u8::try_from(ready.count()).unwrap_or(u8::MAX)
}

/// What kubectl says.
fn kubectl(home: &Home, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(home.0.join("kubectl")).args(arguments).output();
    let output = output.context("run kubectl")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("kubectl {}: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a loss of power does to a node: no process, no memory, the disk as it was; and the boot after it.
pub fn reboot(home: &Home, node: Machine) -> anyhow::Result<()> {
    if node == Machine::Control || space::first(home, node).is_none() {
        bail!("{node} is no node that runs");
    }
    space::end(home, node)?;
    groups::remove(home, Some(node))?;
    space::begin(home, node)?;
    wire(home, node)
}

/// Ends all machines and removes all that they had. Nothing to end is done.
pub fn down(home: &Home) -> anyhow::Result<()> {
    for machine in home.machines().into_iter().rev() {
        space::end(home, machine)?;
    }
    groups::remove(home, None)?;
    if home.settings().exists() {
        run(&["rm", "-rf", "--one-file-system", &home.0.display().to_string()])?;
    }
    Ok(())
}
