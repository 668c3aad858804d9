//! A node for one runtime: mount, network and process-id namespaces, a cgroup above everything it makes, its
//! own `/run` and `/var/lib`, a registry at the same address, and the daemon. All of it ends with the
//! value, however this program ends; only after a SIGKILL do empty cgroups and a folder stay.

use crate::client::Client;
use crate::images;
use crate::options::Options;
use crate::registry::Store;
use crate::runtime::{Runtime, SETUP};
use anyhow::{Context, Result, anyhow, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wherry_tests::cgroups::Cgroups;
use wherry_tests::space::{Space, children, signal_kill};

/// A runtime that answers. Fields end in this order.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    /// One client for what is done one after the other.
    pub(crate) client: Client,
    daemon: Inside,
    registry: Inside,
    space: Space,
    cgroups: Cgroups,
    folder: tempfile::TempDir,
    command: Vec<String>,
    /// Pods get numbers that no other pod has.
    pods: u32,
}

/// A program in the space.
#[derive(Debug)]
struct Inside {
    /// nsenter, which waits for it and ends as it does.
    child: Child,
    /// Its number as this process sees it.
    pid: u32,
}

/// How long a daemon may take to answer before this program gives up on it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks for an answer.
const LOOK: Duration = Duration::from_millis(1);
/// Work that a runtime does beside its last answer is over after that, or so slow that it is its own fault.
const SETTLING: Duration = Duration::from_millis(300);
/// Where nodes have their folders: on a disk, as a node has them.
const SCRATCH: &str = "/var/tmp";
/// A node's disk: a sparse file with a file system of its own. On a shared one the inodes that one runtime
/// frees are in the way of the next: an ext4 without a journal passes over every inode that was freed within
/// the last minutes (`find_inode_bit` in Linux's fs/ext4/ialloc.c), which made the same pull take 3 s or 30 s.
const DISK_BYTES: u64 = 64 << 30;
/// Makes it, and mounts it for this node alone; inode tables are not written beside the measuring.
const DISK: &str = "mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 $disk
mount -o loop,noinit_itable $disk /var/lib
losetup --direct-io=on \"$(findmnt -no SOURCE /var/lib)\" || true
";

impl Node {
    /// Makes the node, starts the runtime and gets it ready for pods.
    pub(crate) async fn start(runtime: Runtime, options: &Options, store: &Store) -> Result<Self> {
        let prefix = format!("wherry-bench-{}-", runtime.name());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(SCRATCH)?;
        let setup = folder.path().join("setup");
        fs::create_dir(&setup).context("make the folder of the settings")?;
        runtime.configure(&setup, &options.programs)?;
        fs::write(setup.join("registry.yml"), store.settings()).context("set the registry up")?;
        let name = format!("wherry-bench-{}-{}", std::process::id(), runtime.name());
        let cgroups = Cgroups::named(&name).map_err(|reason| anyhow!(reason))?;
        let disk = folder.path().join("disk");
        File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).context("make a disk")?;
        let prepare = format!(
            "mount -t tmpfs -o mode=755 run /run\ndisk={}\n{DISK}cp -r {} {SETUP}\n{}{}",
            disk.display(),
            setup.display(),
            cgroups.script(),
            runtime.prepare()
        );
        let space = Space::new(&prepare).map_err(|reason| anyhow!(reason))?;
        let settings = format!("{SETUP}/registry.yml");
        let words = ["docker-registry".to_owned(), "serve".to_owned(), settings];
        let registry = spawn(&space, "", &words, &folder.path().join("registry.log"))?;
        let command = runtime.command(&options.programs);
        let log = folder.path().join("daemon.log");
        let daemon = spawn(&space, &cgroups.enter_script("daemon"), &command, &log)?;
        let client = Client::new(space.path(runtime.socket()));
        let pods = 0;
        let mut node =
            Self { runtime, client, daemon, registry, space, cgroups, folder, command, pods };
        node.prepare().await.with_context(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let end = log.lines().rev().take(8).collect::<Vec<_>>();
            format!("{}; the end of its log:\n{}", runtime.title(), end.join("\n"))
        })?;
        Ok(node)
    }

    /// The images that every pod needs, and a first pod: what is made once is made now.
    async fn prepare(&mut self) -> Result<()> {
        self.answers().await?;
        self.registry_listens()?;
        self.client.pull(images::PAUSE).await?;
        self.client.pull(images::SMALL).await?;
        for _ in 0..2 {
            let pod = self.client.clone().start(&self.name()).await?;
            self.client.exec(&pod.container).await?;
            self.client.end(&pod.id).await?;
        }
        Ok(())
    }

    fn registry_listens(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        // 127.0.0.1:5000 as proc_net_tcp(5) writes it.
        while !self.space.first_process("net/tcp").contains("0100007F:1388") {
            let ended = self.registry.child.try_wait().context("look at the registry")?;
            ensure!(ended.is_none() && Instant::now() < end, "the registry does not listen");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until the runtime says that it and its network are ready.
    async fn answers(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = self.daemon.child.try_wait().context("look at the daemon")?;
            ensure!(ended.is_none(), "the daemon ended");
            if self.client.is_ready().await {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the daemon is not ready after {PATIENCE:?}");
            tokio::time::sleep(20 * LOOK).await;
        }
    }

    /// A name for the next pod.
    pub(crate) fn name(&mut self) -> String {
        self.pods += 1;
        format!("pod{}", self.pods)
    }

    /// Lets what goes on beside the last answer come to an end.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(SETTLING).await;
    }

    /// A client with a connection of its own.
    pub(crate) fn another_client(&self) -> Client {
        Client::new(self.space.path(self.runtime.socket()))
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.pid
    }

    /// Every process of the runtime and of its containers.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = self.space.tree();
        found.retain(|pid| *pid != self.registry.pid);
        found
    }

    /// Seconds of processor time that all of them took so far, those that ended included.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        let time = self.cgroups.processor_time().context("no cgroup counts processor time")?;
        Ok(time.as_secs_f64())
    }

    /// `kill -9` of the daemon, then a new one. The time from its start to its first list of pods.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.daemon.end();
        // nsenter and the shell are there before the clock starts: they are not the runtime's.
        let log = self.folder.path().join("daemon.log");
        let enter = format!("{}read -r _; exec </dev/null\n", self.cgroups.enter_script("daemon"));
        let mut daemon = spawn(&self.space, &enter, &self.command, &log)?;
        self.client = self.another_client();
        let mut door = daemon.child.stdin.take().context("the waiting daemon")?;
        let begun = Instant::now();
        door.write_all(b"\n").context("let the daemon start")?;
        drop(door);
        self.daemon = daemon;
        while self.client.pods().await.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "no list of pods after {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
        let time = begun.elapsed();
        self.answers().await?;
        Ok(time)
    }

    /// Removes every pod, after a failure too.
    pub(crate) async fn clear(&self) -> Result<()> {
        for pod in self.client.pods().await? {
            self.client.end(&pod.id).await?;
        }
        Ok(())
    }

    /// A program's words about itself: `PROGRAM --version`, the first line.
    pub(crate) fn versions(options: &Options) -> Vec<(String, String)> {
        let peers = &options.programs.peers;
        let wherry = options.programs.wherry.clone();
        let asked: [(&str, PathBuf, &str); 4] = [
            ("wherry", wherry, "--version"),
            ("containerd", peers.join("containerd/containerd"), "--version"),
            ("runc", peers.join("runc/runc"), "--version"),
            ("crun", options.programs.crun.clone(), "--version"),
        ];
        let told = asked.map(|(name, program, word)| {
            let output = Command::new(program).arg(word).output();
            let text = output.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
            let first = text.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
            (name.to_owned(), first)
        });
        told.into()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.daemon.end();
        self.registry.end();
    }
}

impl Inside {
    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended by itself meanwhile.
            let _gone_is_fine = signal_kill(self.pid);
            drop(self.child.wait());
        }
    }
}

/// Starts a program inside, after some lines of shell.
fn spawn(space: &Space, before: &str, words: &[String], log: &Path) -> Result<Inside> {
    let log = File::options().append(true).create(true).open(log).context("open a log")?;
    let mut command = space.command(Path::new("sh"));
    command.args(["-ec", &format!("{before}exec \"$@\""), "sh"]).args(words);
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().context("enter the node's namespaces")?;
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(pid) = children(child.id()).first().copied() {
            return Ok(Inside { child, pid });
        }
        let ended = child.try_wait().context("look at a program")?;
        ensure!(ended.is_none() && Instant::now() < end, "{words:?} did not start");
        std::thread::sleep(LOOK);
    }
}
