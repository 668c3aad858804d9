//! A private mount, network and process-id namespace for one test. When the test ends, however it ends,
//! the kernel ends everything in it: the first process dies with the test's thread, and with it all
//! others, their mounts and their links. Relies on util-linux and iproute2. Cgroups and folders are not
//! in it (`cgroups.rs`, `daemon.rs`).

use crate::until;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The namespaces, held by a shell that waits and reaps.
#[derive(Debug)]
pub struct Space {
    outer: Child,
    /// The shell, as this process sees its number.
    first: u32,
}

/// The first process and what it waits for: everything else in a space is the test's.
const KEEPERS: [&str; 2] = ["sh", "sleep"];

impl Space {
    /// Makes them; `prepare` is a shell script that runs inside first. The error is the reason why this
    /// machine does not let us.
    pub fn new(prepare: &str) -> Result<Self, String> {
        let script = format!(
            "set -e; mount --make-rshared /; ip link set lo up\n{prepare}\n\
             sleep infinity & echo ready; exec >/dev/null 2>&1; wait"
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork"]);
        command.args(["--kill-child", "--mount-proc", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A terminal's Ctrl-C is for who made the space, and who then ends it in order.
        command.process_group(0);
        let mut outer = command.spawn().map_err(|error| format!("setpriv: {error}"))?;
        let mut line = String::new();
        BufReader::new(outer.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let mut reason = String::new();
            outer.stderr.take().unwrap().read_to_string(&mut reason).unwrap();
            drop(outer.wait());
            return Err(format!("namespaces of our own: {}", reason.trim()));
        }
        let first = *children(outer.id()).first().expect("a first process");
        Ok(Self { outer, first })
    }

    /// A command that runs inside. The program is a child of the process that is started.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.first.to_string(), "--"]);
        command.arg(program);
        command
    }

    /// Runs a shell script inside; its output. It must succeed.
    pub fn shell(&self, script: &str) -> String {
        let done = self.command(Path::new("sh")).args(["-c", script]).output().unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Every process inside but the keepers, by the numbers that this process sees.
    pub fn tree(&self) -> Vec<u32> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let inside = namespace(self.first);
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let keepers = [Some(self.first), children(self.first).into_iter().find(|pid| idles(*pid))];
        // A container has a namespace of its own below this one, and its parent is in this one.
        let mut found: Vec<u32> = numbers.filter(|pid| namespace(*pid) == inside).collect();
        let below: Vec<u32> = found.iter().flat_map(|pid| descendants(*pid)).collect();
        found.extend(below);
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| !keepers.contains(&Some(*pid)));
        found
    }

    /// A connection that begins inside: a socket stays in the network namespace it was made in.
    pub fn connect(&self, address: SocketAddr) -> TcpStream {
        let namespace = File::open(format!("/proc/{}/ns/net", self.first)).unwrap();
        let connecting = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            TcpStream::connect(address).unwrap()
        });
        connecting.join().unwrap()
    }

    /// A path as it is seen inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let below = inside.strip_prefix("/").unwrap_or(inside);
        Path::new("/proc").join(self.first.to_string()).join("root").join(below)
    }

    /// A file of the first process, such as `mountinfo` or `net/dev`.
    pub fn first_process(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.first)).unwrap()
    }

    /// Whether somebody in the network namespace accepts TCP connections on this port (`proc_net_tcp(5)`).
    pub fn listens(&self, port: u16) -> bool {
        let (port, listening) = (format!(":{port:04X} "), " 0A ");
        let tables = self.first_process("net/tcp") + &self.first_process("net/tcp6");
        tables.lines().any(|line| {
            let local = line.split_whitespace().nth(1).unwrap_or_default();
            format!("{local} ").ends_with(&port) && line.contains(listening)
        })
    }

    /// Does something in a network namespace: the file, as it is seen inside, pins it. Sockets that are
    /// made there stay there.
    pub fn within<T: Send>(
        &self,
        namespace: impl AsRef<Path>,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let namespace = std::fs::File::open(self.path(namespace)).unwrap();
        // A thread of its own: changing its namespace changes nobody else's.
        let enter = nix::sched::CloneFlags::CLONE_NEWNET;
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                nix::sched::setns(&namespace, enter).unwrap();
                work()
            });
            there.join().unwrap()
        })
    }

    /// Every process inside but the keepers: its number in here, and its name. Processes that ended and
    /// were not reaped count too.
    pub fn processes(&self) -> BTreeMap<u32, String> {
        let entries = std::fs::read_dir(self.path("/proc")).unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let named = numbers.filter_map(|pid| {
            let name = std::fs::read_to_string(self.path(format!("/proc/{pid}/comm"))).ok()?;
            Some((pid, name.trim_end().to_owned()))
        });
        // Numbers 1 and 2, unless the preparation ran something: then the sleep is the first child.
        let keepers = self.keepers();
        named.filter(|(pid, _)| !keepers.contains(pid)).collect()
    }

    fn keepers(&self) -> Vec<u32> {
        let children = std::fs::read_to_string(self.path("/proc/1/task/1/children")).unwrap();
        let numbers = children.split_whitespace().filter_map(|text| text.parse::<u32>().ok());
        let idle = numbers.min().expect("the sleep of the first process");
        let name = std::fs::read_to_string(self.path(format!("/proc/{idle}/comm"))).unwrap();
        assert_eq!(name.trim_end(), KEEPERS[1]);
        vec![1, idle]
    }

    /// The processes with this name that have not ended, by their numbers in here.
    pub fn named(&self, name: &str) -> Vec<u32> {
        let all = self.processes().into_iter().filter(|(_, known)| known == name);
        all.map(|(pid, _)| pid).filter(|pid| self.is_alive(*pid)).collect()
    }

    /// Sends `SIGKILL` to a process by its number in here, and waits until it is gone. It may have ended
    /// already.
    pub fn kill(&self, pid: u32) {
        self.shell(&format!("kill -9 {pid} 2>/dev/null || true"));
        until("the end of a killed process", || (!self.is_alive(pid)).then_some(()));
    }

    fn is_alive(&self, pid: u32) -> bool {
        let status = std::fs::read_to_string(self.path(format!("/proc/{pid}/status")));
        status.is_ok_and(|text| !text.lines().any(|line| line.starts_with("State:\tZ")))
    }

    /// Ends everything inside at once, as a power cut does.
    pub fn kill_all(&self) {
        until("an end of everything inside", || {
            let left: Vec<String> = self.processes().keys().map(ToString::to_string).collect();
            if !left.is_empty() {
                // Some have gone meanwhile.
                self.shell(&format!("kill -9 {} 2>/dev/null || true", left.join(" ")));
            }
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // The kernel lets the first process go once all others are gone, and then its parent ends too.
        let _gone_is_fine = signal_kill(self.first);
        drop(self.outer.wait());
    }
}

/// Sends `SIGKILL` to a process, by the number that this process sees.
pub fn signal_kill(process: u32) -> nix::Result<()> {
    let pid = nix::unistd::Pid::from_raw(process.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
}

/// Whether it is what the first process of a space waits for.
fn idles(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\0infinity\0")
}

/// Children, their children, and so on.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = children(process);
    let mut at = 0;
    while let Some(next) = found.get(at).copied() {
        found.extend(children(next));
        at += 1;
    }
    found
}

/// The children of a process, by the numbers that this process sees.
pub fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let texts: Vec<String> = lists.collect();
    texts.iter().flat_map(|text| text.split_whitespace()).flat_map(str::parse).collect()
}
