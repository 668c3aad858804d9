//! A daemon for one test: `wherry serve` from `WHERRY_BIN` in a space of its own, with a scratch root and
//! state (each on a tmpfs of the space), its own network configuration and the test image. It can be
//! killed, started again, and "rebooted": everything ended, the state emptied, another boot id.

use crate::cgroups::Cgroups;
use crate::cri::Cri;
use crate::pods::Pod;
use crate::requests::{self, Network};
use crate::space::{Space, children, signal_kill};
use crate::{handlers, images, say, until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where it is and that it runs. Fields end in this order: processes, then groups, then folders.
#[derive(Debug)]
pub struct Daemon {
    process: Mutex<Running>,
    cri: Cri,
    space: Space,
    cgroups: Cgroups,
    folder: tempfile::TempDir,
    program: PathBuf,
    /// Boots after this one.
    boots: AtomicU32,
}

#[derive(Debug)]
struct Running {
    /// nsenter, which waits for the daemon and ends as it does.
    child: Child,
    /// The daemon's number as this process sees it.
    pid: u32,
}

/// A usual network: done in process, so no plugin is needed.
const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "tests", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.0.0/16"}]],
              "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

/// The kernel's file; one of ours is over it, to be changed by a reboot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The daemon runs itself, by `/proc/self/exe`, to pull and import.
const PULL_WORKER: &str = "exe";

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Size of the root's file system in MiB; `None` = as large as memory allows.
    pub root_mib: Option<u32>,
    /// With a network configuration, as on a node; without, the command line's own bridge is used.
    pub network: bool,
    /// Further lines of its configuration; the word FOLDER is the test's folder.
    pub config: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self { root_mib: None, network: true, config: String::new() }
    }
}

impl Daemon {
    /// A daemon that answers and has the test image. `None`, said aloud, where that is impossible.
    pub fn start() -> Option<Self> {
        Self::with(&Setup::default())
    }

    /// Likewise, set up as the test wants.
    pub fn with(setup: &Setup) -> Option<Self> {
        match Self::try_with(setup) {
            Ok(daemon) => Some(daemon),
            Err(reason) => {
                say(&format!("skipped: {reason}"));
                None
            }
        }
    }

    fn try_with(setup: &Setup) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let program = crate::program().ok_or("WHERRY_BIN names no program; use hack/check")?;
        if let Some(missing) = images::missing() {
            return Err(missing);
        }
        let folder = tempfile::Builder::new().prefix("wherry-").tempdir().unwrap();
        for name in ["root", "state", "cni", "logs", "registry", "bin"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let at = folder.path().display().to_string();
        let more = setup.config.replace("FOLDER", &at);
        // No systemd of the machine knows the groups of a space.
        let config = format!(
            "[log]\nlevel = \"debug,h2=warn\"\n[cgroup]\ndriver = \"cgroupfs\"\n[cdi]\nspec_dirs = [\"{at}/cdi\", \"{at}/cdi-late\"]\n\
             [nri]\nsocket_path = \"{at}/nri.sock\"\n{more}{}",
            handlers::tables()
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        if setup.network {
            fs::write(folder.path().join("cni/10-tests.conflist"), NETWORK).unwrap();
        }
        fs::write(folder.path().join("boot_id"), boot_id(0)).unwrap();
        let cgroups = Cgroups::new()?;
        let at = folder.path().display();
        let size = setup.root_mib.map(|mib| format!("-o size={mib}m")).unwrap_or_default();
        let mounts = format!(
            "mount -t tmpfs {size} root {at}/root; mount -t tmpfs state {at}/state\n\
             mount --bind {at}/boot_id {BOOT_ID}\n{}",
            cgroups.script()
        );
        let space = Space::new(&mounts)?;
        let log = folder.path().join("log");
        let process = Mutex::new(serve(&space, Path::new(&program), folder.path()));
        let cri = Cri::new(&folder.path().join("wherry.sock"));
        let program = program.into();
        let daemon =
            Self { process, cri, space, cgroups, folder, program, boots: AtomicU32::new(1) };
        daemon.answers();
        assert!(log.exists());
        daemon.import(images::NAME, &["IMAGE=test"]);
        daemon.run_once(setup);
        Ok(daemon)
    }

    /// The first pod makes what stays for all others: the group above them, the bridge.
    fn run_once(&self, setup: &Setup) {
        if setup.network {
            let pod = self.pod("first-of-all", Network::Pod);
            pod.idle("c");
            pod.remove();
        } else {
            let done = self.wherry(&["run", "--rm", images::NAME, "true"]);
            assert!(done.status.success(), "{done:?}\n{}", self.log());
        }
    }

    /// Waits until it answers.
    fn answers(&self) {
        until("an answer of the daemon", || {
            let ended = self.process.lock().unwrap().child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended:\n{}", self.log());
            self.cri.version().ok()
        });
    }

    /// Makes an image and imports it.
    pub fn import(&self, name: &str, env: &[&str]) {
        self.import_with(name, &serde_json::json!({"Env": env, "Cmd": ["sh"]}));
    }

    /// Makes an image with this as the `config` of its configuration, and imports it.
    pub fn import_with(&self, name: &str, config: &serde_json::Value) {
        let archive = self.folder.path().join("image.tar");
        images::Image::with(config).write(&archive, name);
        let done = self.wherry(&["image", "import", archive.to_str().unwrap()]);
        assert!(done.status.success(), "{done:?}\n{}", self.log());
        fs::remove_file(archive).unwrap();
        self.forget_worker();
    }

    /// Ends the pull worker: it would leave by itself, some time later, too late for who counts.
    pub fn forget_worker(&self) {
        for worker in self.space.named(PULL_WORKER) {
            self.space.kill(worker);
        }
    }

    /// A client.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Another client, with a connection of its own.
    pub fn new_client(&self) -> Cri {
        Cri::new(&self.beside("wherry.sock"))
    }

    /// Runs a pod.
    pub fn pod(&self, name: &str, network: Network) -> Pod<'_> {
        Pod::run(self, requests::pod(name, network, &self.logs()))
    }

    /// The namespaces it is in.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The cgroups it sees.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Its folder for durable data, as it sees it.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Its folder for state, as it sees it.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where pods' logs go; the same inside and outside.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// A path in the test's folder; the same inside and outside.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it told so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.beside("log")).unwrap_or_default()
    }

    /// The command line, to be given arguments. It runs in the space.
    pub fn command_line(&self) -> Command {
        let mut command = self.space.command(&self.program);
        command.arg("--socket").arg(self.beside("wherry.sock")).stdin(Stdio::null());
        command
    }

    /// Runs the command line.
    pub fn wherry(&self, arguments: &[&str]) -> Output {
        self.command_line().args(arguments).output().unwrap()
    }

    /// Sends it `SIGKILL`, and waits until it is gone. Its pods run on.
    pub fn kill(&self) {
        self.process.lock().unwrap().end();
    }

    /// Sends it `SIGTERM`, and waits until it has left by itself. Its pods run on.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        let pid = nix::unistd::Pid::from_raw(process.pid.try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = until("the daemon's end", || process.child.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Starts it again after [`Daemon::kill`], and waits until it answers.
    pub fn start_again(&self) {
        *self.process.lock().unwrap() = serve(&self.space, &self.program, self.folder.path());
        self.answers();
    }

    /// `kill -9` and a new start.
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// The machine goes down with everything that runs, and comes up again under another boot id. The
    /// daemon is not started: [`Daemon::start_again`].
    pub fn reboot(&self) {
        self.kill();
        self.space.kill_all();
        self.cgroups.clear();
        let state = self.state();
        let boots = self.boots.fetch_add(1, Ordering::Relaxed);
        fs::write(self.beside("boot_id"), boot_id(boots)).unwrap();
        let state = state.display();
        self.space.shell(&format!(
            "set -e; umount -R {state} || umount -R -l {state}; mount -t tmpfs state {state}\n\
             for link in $(ls /sys/class/net); do test $link = lo || ip link del $link || true; done\n\
             nft flush ruleset"
        ));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("what the daemon told:\n{}", self.log()));
        }
        // While nsenter is there to reap it; everything else ends with the space.
        if let Ok(mut process) = self.process.lock() {
            process.end();
        }
    }
}

impl Running {
    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone_is_fine = signal_kill(self.pid);
            drop(self.child.wait());
        }
    }
}

/// The kernel's form: a UUID.
fn boot_id(boot: u32) -> String {
    format!("5ca1ab1e-0000-4000-8000-{boot:012}\n")
}

fn serve(space: &Space, program: &Path, folder: &Path) -> Running {
    let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut command = space.command(program);
    command.arg("serve");
    for (flag, name) in [
        ("--config", "config.toml"),
        ("--socket", "wherry.sock"),
        ("--root", "root"),
        ("--state", "state"),
        ("--cni-conf-dir", "cni"),
        ("--cni-bin-dir", "bin"),
        ("--registry-config", "registry"),
    ] {
        command.arg(flag).arg(folder.join(name));
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let pid = until("the daemon's process", || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "nsenter ended: {}",
            fs::read_to_string(folder.join("log")).unwrap()
        );
        children(child.id()).first().copied()
    });
    Running { child, pid }
}
