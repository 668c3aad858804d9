//! A real cluster for a test: `hack/cluster` with a home of its own, and the real kubectl. It ends with
//! the test; when the test failed, the last words of its components are told.

use crate::{say, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Lines of a component's log that a failed test tells.
const LAST: usize = 40;

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    home: TempDir,
    wherry: PathBuf,
}

impl Cluster {
    /// Starts one, with arguments of `hack/cluster up`; without root or the built programs, says so.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let Some(wherry) = crate::program() else {
            say("skipped: WHERRY_BIN names no program");
            return None;
        };
        Self::with_wherry(Path::new(&wherry), arguments)
    }

    /// Starts one whose nodes run this program.
    pub fn with_wherry(wherry: &Path, arguments: &[&str]) -> Option<Self> {
        if crate::setting("WHERRY_PEERS").is_none() {
            say("skipped: WHERRY_PEERS names no programs; hack/cluster build makes them");
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            say("skipped: a cluster needs root");
            return None;
        }
        let home = tempfile::Builder::new().prefix("wherry-cluster-").tempdir().unwrap();
        let cluster = Self { home, wherry: wherry.to_owned() };
        let up: Vec<&str> = ["up"].iter().chain(arguments).copied().collect();
        told(&cluster.tool(&up).output().unwrap());
        until("names of Services", || {
            let ready = ["get", "deployment", "coredns", "-n", "kube-system", "-o"];
            let field = "jsonpath={.status.readyReplicas}";
            (cluster.kubectl(&[&ready[..], &[field]].concat()) == "1").then_some(())
        });
        Some(cluster)
    }

    /// What kubectl says; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        told(&self.command(arguments).output().unwrap())
    }

    /// What kubectl says when it must not succeed.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// kubectl that goes on.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// kubectl, with nothing to read.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.home.path().join("kubectl"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Applies a file of `tests/cluster/manifests`.
    pub fn apply(&self, name: &str) {
        let file = root().join("tests/cluster/manifests").join(name);
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// Waits for a condition of an object, as `kubectl wait --for` names it.
    pub fn wait(&self, object: &str, condition: &str) {
        self.kubectl(&["wait", object, &format!("--for={condition}"), "--timeout=60s"]);
    }

    /// A field of an object, by its JSON path.
    pub fn field(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// What a shell of a container says.
    pub fn shell(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Its folder, the same on every node.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The program that its nodes run.
    pub fn wherry(&self) -> &Path {
        &self.wherry
    }

    /// What a shell on a node says that must not succeed.
    pub fn node_refuses(&self, number: u8, script: &str) -> String {
        let node = format!("node-{number}");
        let output = self.tool(&["enter", &node, "sh", "-c", script]).output().unwrap();
        assert!(!output.status.success(), "{script} succeeded");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a shell on a node says.
    pub fn on_node(&self, number: u8, script: &str) -> String {
        told(
            &self.tool(&["enter", &format!("node-{number}"), "sh", "-c", script]).output().unwrap(),
        )
    }

    /// What a command in the cluster's network says.
    pub fn in_network(&self, command: &[&str]) -> String {
        told(&self.command_in_network(command).output().unwrap())
    }

    /// A command in the cluster's network.
    pub fn command_in_network(&self, command: &[&str]) -> Command {
        self.tool(&[&["run"], command].concat())
    }

    /// `hack/cluster` of this cluster, for what must succeed.
    pub fn hack(&self, words: &[&str]) {
        told(&self.tool(words).output().unwrap());
    }

    fn tool(&self, words: &[&str]) -> Command {
        let mut command = Command::new(root().join("hack/cluster"));
        command.env("WHERRY_CLUSTER", self.home.path()).env("WHERRY_BIN", &self.wherry);
        command.args(words).stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for component in ["kubelet", "wherry", "kube-proxy"] {
                let log = self.home.path().join("node-1").join(component).with_extension("log");
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines.len().saturating_sub(LAST);
                say(&format!("the end of {}:", log.display()));
                for line in lines.get(last..).unwrap_or_default() {
                    say(&line.chars().take(300).collect::<String>());
                }
            }
        }
        let ended = self.tool(&["down"]).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            say("the cluster could not be ended");
        }
    }
}

/// Whether a peer was built that not every cluster needs.
pub fn built(peer: &str) -> bool {
    let peers = crate::setting("WHERRY_PEERS");
    peers.is_some_and(|peers| Path::new(&peers).join(peer).join("stamp").exists())
}

/// What a command wrote; it must have succeeded.
fn told(output: &Output) -> String {
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{complained}", output.status);
    said.into_owned()
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
