//! What the tests share: a daemon's side of zygote and monitor, a root file system of busybox, cgroups
//! of their own, and plans. Everything made here goes away with its value.

use shim_child::{ZygoteHandle, spawn_zygote};
use shim_model::id::{ContainerId, SandboxId};
use shim_model::limits;
use shim_model::plan::{Attributes, InitPlan, PidNamespace, Program, Source, Spread, Step};
use shim_model::wire::{
    CgroupFds, ContainerState, Exit, Frame, FromMonitor, FromZygote, Journal, PodPlan, Process,
    Start, StartTimes, ToMonitor, ToZygote, VERSION, decode, decode_journal, encode, encode_as,
};
use shim_sys::socket::{Bounds, Packet};
use shim_sys::{clock, fd, mount, process, socket};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const BUSYBOX: &str = "/usr/bin/busybox";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const BOUNDS: Bounds =
    Bounds { inline: limits::WIRE_MESSAGE_BYTES, memory: limits::WIRE_PAYLOAD_BYTES };

/// Why nothing can be tested here.
pub(crate) fn missing() -> Option<&'static str> {
    let root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Some("needs root");
    }
    (!Path::new(BUSYBOX).exists()).then_some("needs a static busybox in /usr/bin")
}

/// A cgroup v2 folder of a test's own, if the host has the hierarchy.
pub(crate) struct Group {
    path: Option<PathBuf>,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let base = if Path::new(UNIFIED).exists() { UNIFIED } else { "/sys/fs/cgroup" };
        let path = Path::new(base).join(format!("wherry-test-{}-{name}", process::own_pid()));
        let usable = Path::new(base).join("cgroup.procs").exists();
        if !usable {
            eprintln!("no cgroup v2 hierarchy here: without groups");
            return Self { path: None };
        }
        fs::create_dir(&path).unwrap();
        Self { path: Some(path) }
    }

    /// No group: the monitor has nothing to kill by.
    pub(crate) const fn none() -> Self {
        Self { path: None }
    }

    /// The group of a container, made if it is not there.
    pub(crate) fn fds(&self, number: u8) -> (CgroupFds, Vec<OwnedFd>) {
        let Some(path) = &self.path else { return (CgroupFds::default(), vec![]) };
        let path = path.join(number.to_string());
        fs::create_dir_all(&path).unwrap();
        let open = || OwnedFd::from(fs::File::open(&path).unwrap());
        (CgroupFds { join: 0, into: true, kill: true, oom: false }, vec![open(), open()])
    }

    /// How many groups there are below the first container's.
    pub(crate) fn folders(&self) -> usize {
        let Some(path) = &self.path else { return 0 };
        let entries = fs::read_dir(path.join("1")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }
}

/// Removes a group and all below; killed processes take a moment to leave.
fn remove(path: &Path) {
    let below: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    below.iter().filter(|path| path.is_dir()).for_each(|path| remove(path));
    for _ in 0..100_000 {
        if fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    eprintln!("cgroup {} stays", path.display());
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(fs::write(path.join("cgroup.kill"), "1"));
            remove(path);
        }
    }
}

/// A folder with busybox in it.
pub(crate) struct Rootfs(pub(crate) tempfile::TempDir);

impl Rootfs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::copy(BUSYBOX, dir.path().join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "cat", "echo", "id", "seq", "mount", "ls", "hostname", "true"] {
            std::os::unix::fs::symlink("busybox", dir.path().join("bin").join(name)).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn tree(&self) -> OwnedFd {
        mount::clone_path(&c_path(self.0.path()), false).unwrap()
    }
}

pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub(crate) fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

/// A plan that runs `sh -c script` as root.
pub(crate) fn shell(script: &str) -> InitPlan {
    let attributes = Attributes::default();
    let mounts = vec![
        Step::AttachRoot { slot: 0, spread: Spread::Private },
        Step::NewFs {
            fstype: text("proc"),
            source: text("proc"),
            options: vec![],
            attributes,
            target: text("/proc"),
        },
        Step::Device {
            path: text("/dev/null"),
            block: false,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        },
        Step::Pivot,
    ];
    InitPlan {
        sources: vec![Source::Root],
        pid: PidNamespace::Own,
        mounts,
        process: vec![Step::Session, Step::Keyring, Step::Chdir(text("/"))],
        program: command(&["/bin/sh", "-c", script]),
    }
}

pub(crate) fn command(argv: &[&str]) -> Program {
    Program {
        candidates: vec![text(argv[0])],
        argv: argv.iter().map(|part| text(part)).collect(),
        env: vec![text("PATH=/bin")],
    }
}

/// A pod: zygote, monitor, a connection to it.
pub(crate) struct Pod {
    pub(crate) zygote: Option<ZygoteHandle>,
    pub(crate) monitor: OwnedFd,
    pub(crate) process: Process,
    pub(crate) init: Option<Process>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) rootfs: Rootfs,
    pub(crate) group: Group,
    /// How the next containers are started.
    pub(crate) stdio: Stdio,
    /// Descriptors that came beside messages.
    pub(crate) came: VecDeque<OwnedFd>,
    /// Version that messages are sent in.
    pub(crate) version: u8,
    socket: Option<OwnedFd>,
    number: u64,
    heard: VecDeque<Frame<FromMonitor>>,
}

/// Standard streams of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdio {
    /// No input.
    Outputs,
    /// An input that stays open.
    Input,
    /// An input for the first client.
    InputOnce,
    /// A terminal, which is an input too.
    Terminal,
}

impl Pod {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, PodPlan::default(), &[])
    }

    pub(crate) fn with(name: &str, plan: PodPlan, fds: &[OwnedFd]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let zygote = spawn_zygote().unwrap();
        let (monitor, process) = fork(&zygote, dir.path());
        let mut pod = Self {
            zygote: Some(zygote),
            monitor,
            process,
            init: None,
            dir,
            rootfs: Rootfs::new(),
            group: Group::new(name),
            stdio: Stdio::Outputs,
            came: VecDeque::new(),
            version: VERSION,
            socket: None,
            number: 0,
            heard: VecDeque::new(),
        };
        pod.connect();
        match pod.ask(&ToMonitor::Setup(plan), fds) {
            FromMonitor::Ready { monitor, pod_init } => {
                assert_eq!(monitor, process);
                pod.init = pod_init;
            }
            other => panic!("{other:?}"),
        }
        pod
    }

    pub(crate) fn connect(&mut self) {
        let dir = fs::File::open(self.dir.path()).unwrap();
        self.socket = Some(socket::connect(&dir, "monitor.sock").unwrap());
        self.heard.clear();
    }

    /// As if the daemon were killed: its connection and its zygote's socket close.
    pub(crate) fn lose_daemon(&mut self) {
        self.socket = None;
        let zygote = self.zygote.take().unwrap();
        drop(zygote.socket);
        assert_eq!(process::reap_blocking(zygote.pidfd).unwrap(), 0);
    }

    pub(crate) fn send(&mut self, body: &ToMonitor, fds: &[OwnedFd]) -> u64 {
        self.number += 1;
        let bytes = encode_as(self.version, self.number, body).unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let socket = self.socket.as_ref().unwrap();
        socket::send(socket, &bytes, &fds, BOUNDS.inline).unwrap();
        self.number
    }

    /// The next message that fits; others wait for their turn.
    pub(crate) fn hear<T>(&mut self, fits: impl Fn(&Frame<FromMonitor>) -> Option<T>) -> T {
        for at in 0..self.heard.len() {
            if let Some(found) = fits(&self.heard[at]) {
                self.heard.remove(at);
                return found;
            }
        }
        loop {
            let socket = self.socket.as_ref().unwrap();
            let Packet { bytes, fds } =
                socket::recv(socket, BOUNDS).unwrap().expect("the monitor closed");
            self.came.extend(fds);
            let frame = decode::<FromMonitor>(&bytes).unwrap();
            match fits(&frame) {
                Some(found) => return found,
                None => self.heard.push_back(frame),
            }
        }
    }

    pub(crate) fn reply(&mut self, number: u64) -> FromMonitor {
        self.hear(|frame| (frame.number == number).then(|| frame.body.clone()))
    }

    pub(crate) fn ask(&mut self, body: &ToMonitor, fds: &[OwnedFd]) -> FromMonitor {
        let number = self.send(body, fds);
        self.reply(number)
    }

    /// Sends a start; its log is `NAME.log` in the pod's folder, appended.
    pub(crate) fn begin(&mut self, number: u8, plan: InitPlan, sources: Vec<OwnedFd>) -> u64 {
        let sources = std::iter::once(self.rootfs.tree()).chain(sources).collect();
        self.begin_with(number, plan, (sources, 0))
    }

    /// Sends a start whose only source follows later.
    pub(crate) fn begin_without_root(&mut self, number: u8, plan: InitPlan) -> (u64, OwnedFd) {
        (self.begin_with(number, plan, (vec![], 1)), self.rootfs.tree())
    }

    fn begin_with(
        &mut self,
        number: u8,
        plan: InitPlan,
        (sources, more): (Vec<OwnedFd>, u16),
    ) -> u64 {
        let (cgroup, groups) = self.group.fds(number);
        let fds = groups.into_iter().chain(sources).collect();
        self.send_start((number, more), plan, (cgroup, fds))
    }

    /// Starts in these groups; the reply, whatever it is.
    pub(crate) fn start_in(
        &mut self,
        number: u8,
        plan: InitPlan,
        (cgroup, mut fds): (CgroupFds, Vec<OwnedFd>),
    ) -> FromMonitor {
        fds.push(self.rootfs.tree());
        let request = self.send_start((number, 0), plan, (cgroup, fds));
        self.reply(request)
    }

    fn send_start(
        &mut self,
        (number, more): (u8, u16),
        plan: InitPlan,
        (cgroup, rest): (CgroupFds, Vec<OwnedFd>),
    ) -> u64 {
        let mut fds = vec![self.open_log(number)];
        fds.extend(rest);
        let start = Start {
            container: id(number),
            log: true,
            stdin: self.stdio != Stdio::Outputs,
            stdin_once: self.stdio == Stdio::InputOnce,
            tty: self.stdio == Stdio::Terminal,
            cgroup,
            plan,
            more,
        };
        self.send(&ToMonitor::Start(Box::new(start)), &fds)
    }

    pub(crate) fn start(&mut self, number: u8, plan: InitPlan) -> Process {
        self.start_with(number, plan, vec![])
    }

    pub(crate) fn start_with(
        &mut self,
        number: u8,
        plan: InitPlan,
        sources: Vec<OwnedFd>,
    ) -> Process {
        let request = self.begin(number, plan, sources);
        match self.reply(request) {
            FromMonitor::Launched { process, at, times } => {
                assert!(at <= clock::now());
                let StartTimes { asked, entered, mounted, walked, executed } = times;
                assert!(asked > 0 && [asked, entered, mounted, walked, executed].is_sorted());
                process
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn exit(&mut self, number: u8) -> Exit {
        let wanted = id(number);
        self.hear(|frame| match &frame.body {
            FromMonitor::Exited { container, exit } if *container == wanted => Some(exit.clone()),
            _ => None,
        })
    }

    /// Starts, waits for the end; code and log.
    pub(crate) fn run(&mut self, number: u8, plan: InitPlan) -> (i32, Vec<String>) {
        self.start(number, plan);
        let exit = self.exit(number);
        (exit.code, self.log(number))
    }

    pub(crate) fn state(&mut self) -> Vec<ContainerState> {
        match self.ask(&ToMonitor::State, &[]) {
            FromMonitor::State { containers, .. } => containers,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn log_path(&self, number: u8) -> PathBuf {
        self.dir.path().join(format!("{number}.log"))
    }

    pub(crate) fn open_log(&self, number: u8) -> OwnedFd {
        let path = self.log_path(number);
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().into()
    }

    /// The log's records without their time.
    pub(crate) fn log(&self, number: u8) -> Vec<String> {
        let bytes = fs::read(self.log_path(number)).unwrap();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    pub(crate) fn journal(&self) -> Vec<Journal> {
        let bytes = fs::read(self.dir.path().join("journal")).unwrap();
        let (entries, torn) = decode_journal(&bytes);
        assert_eq!(torn, 0);
        entries
    }

    pub(crate) fn quit(&mut self) {
        assert_eq!(self.ask(&ToMonitor::Quit, &[]), FromMonitor::Done);
        fd::wait_readable(&self.monitor).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(process::pidfd_send_signal(&self.monitor, 9));
        drop(fd::wait_readable(&self.monitor));
        if let Some(zygote) = self.zygote.take() {
            drop(zygote.socket);
            drop(process::reap_blocking(zygote.pidfd));
        }
    }
}

/// Asks a zygote for a monitor that serves a folder.
pub(crate) fn fork(zygote: &ZygoteHandle, dir: &Path) -> (OwnedFd, Process) {
    let folder = fs::File::open(dir).unwrap();
    let listener = socket::listen(&folder, "monitor.sock", 16).unwrap();
    let journal =
        fs::OpenOptions::new().append(true).create(true).open(dir.join("journal")).unwrap();
    let fork = ToZygote::Fork { sandbox: SandboxId::from_random([1; 32]) };
    let fds = [listener.as_fd(), journal.as_fd()];
    socket::send(&zygote.socket, &encode(5, &fork).unwrap(), &fds, BOUNDS.inline).unwrap();
    let mut packet = socket::recv(&zygote.socket, BOUNDS).unwrap().expect("the zygote closed");
    match decode::<FromZygote>(&packet.bytes).unwrap() {
        Frame { number: 5, body: FromZygote::Forked { process }, .. } => {
            (packet.fds.remove(0), process)
        }
        other => panic!("{other:?}"),
    }
}

/// One question on a connection of its own.
pub(crate) fn ask(socket: &OwnedFd, body: &ToMonitor) -> FromMonitor {
    socket::send(socket, &encode(1, body).unwrap(), &[], BOUNDS.inline).unwrap();
    let packet = socket::recv(socket, BOUNDS).unwrap().expect("the monitor closed");
    decode::<FromMonitor>(&packet.bytes).unwrap().body
}
