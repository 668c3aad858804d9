//! What daemon, zygote and monitor say to each other, and the monitor's journal. One message is one
//! `SOCK_SEQPACKET` datagram: [`Frame`] in postcard, descriptors beside it (`SCM_RIGHTS`). A frame
//! larger than `limits::WIRE_MESSAGE_BYTES` travels in a sealed memfd, which is then the first
//! descriptor, and the datagram is empty. Every request gets exactly one reply with its number;
//! events have number 0. Additions go at the end of an enum: a daemon must understand monitors of
//! one version earlier ([`VERSION`]). It speaks its own version first; a monitor that does not know it ends
//! the connection, and is spoken to in the one before, without what that lacks. A monitor answers in the
//! version that it is spoken to in, so an earlier daemon understands it too.

use crate::handler::order::{ExecBy, StartBy};
use crate::id::{ContainerId, SandboxId};
use crate::idmaps::UserMaps;
use crate::plan::{ExecPlan, InitPlan};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::ffi::CString;

/// Version of this protocol, first field of every frame. 2 has what attach, terminals and streamed execs
/// need, and the times of a start: the requests from [`ToMonitor::Attach`] on and the answers from
/// [`FromMonitor::ExecBegan`] on.
pub const VERSION: u8 = 2;

/// Nanoseconds since the epoch.
pub type Nanos = i64;

/// A message with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame<T> {
    /// [`VERSION`] of the sender.
    pub version: u8,
    /// Number of the request; 0 for events.
    pub number: u64,
    /// The message.
    pub body: T,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the node's PID namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat (clock ticks since boot).
    pub start: u64,
}

/// Daemon to zygote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToZygote {
    /// Fork a monitor. Descriptors: the pod's listening socket (bound to `monitor.sock`), the
    /// journal (opened for appending).
    Fork { sandbox: SandboxId },
}

/// Zygote to daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromZygote {
    /// It runs. Descriptor: its pidfd.
    Forked { process: Process },
    /// It could not be made.
    Failed(Failure),
}

/// Why a step of zygote, monitor or child failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}{}", errno_text(*.errno))]
pub struct Failure {
    /// What was being done, with its target: `mount proc at /proc`, `execve(/bin/nginx)`.
    pub step: String,
    /// Linux errno; 0 where there is none.
    pub errno: i32,
    /// True when the container's own program could not be executed (not our fault).
    pub exec: bool,
}

/// The text of an errno, for messages; nothing where there is none.
fn errno_text(errno: i32) -> String {
    match errno {
        0 => String::new(),
        errno => format!(": {}", std::io::Error::from_raw_os_error(errno)),
    }
}

/// What the monitor makes of itself for its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// Join the network namespace whose descriptor comes first.
    pub join_network: bool,
    /// Make a UTS namespace with this name; `None` = the node's.
    pub hostname: Option<CString>,
    /// Make an IPC namespace, and a /dev/shm of this many bytes; `None` = the node's.
    pub shm_bytes: Option<u64>,
    /// Files below /proc/sys (`net/ipv4/ip_forward`) and what to write, after the namespaces exist.
    pub sysctls: Vec<(CString, CString)>,
    /// Make pod-init in a PID namespace of its own. Its cgroup descriptors follow, as in [`Start`].
    pub pod_init: Option<CgroupFds>,
    /// Make a user namespace, which owns everything else that is made; the monitor stays outside.
    pub user: Option<UserPlan>,
    /// The AppArmor profile of pod-init.
    pub profile: Option<CString>,
    /// The SELinux context of the /dev/shm.
    pub files: Option<CString>,
}

/// A pod's own user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// Its maps.
    pub maps: UserMaps,
    /// Make a network namespace in it, instead of joining one; its descriptor comes with `Ready`.
    pub network: bool,
}

/// How many cgroup descriptors come, in this order.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupFds {
    /// `tasks` files of v1 hierarchies: the child writes `0` into each.
    pub join: u8,
    /// True: then the v2 folder for `CLONE_INTO_CGROUP`.
    pub into: bool,
    /// True: then the folder with `cgroup.kill` and `cgroup.procs`, where execs get sub-groups (the
    /// v2 folder again, or the freezer's on pure v1).
    pub kill: bool,
    /// True: then `memory.events` (v2) or `memory.oom_control` (v1), to be read at the exit.
    pub oom: bool,
}

/// Start a container. Descriptors in this order: the log file if `log`; the cgroup descriptors; one
/// for each entry of the plan's `sources`. More than `limits::WIRE_DESCRIPTORS` of them are announced
/// by `more` and follow in [`ToMonitor::Descriptors`] messages.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which container.
    pub container: ContainerId,
    /// A log file comes with this message.
    pub log: bool,
    /// Keep a pipe open as standard input (attach); else it is /dev/null.
    pub stdin: bool,
    /// Close standard input after the first attached client.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Cgroup descriptors.
    pub cgroup: CgroupFds,
    /// What the first process does.
    pub plan: InitPlan,
    /// How many descriptors follow in later messages.
    pub more: u16,
}

/// Run a command in a container and wait. Descriptors: standard output and standard error (write
/// ends of pipes), standard input if `stdin`. The reply comes when the process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Which container.
    pub container: ContainerId,
    /// What the process does.
    pub plan: ExecPlan,
    /// Kill it and everything it started after so many nanoseconds; 0 = never.
    pub timeout: u64,
    /// A third descriptor is its standard input; else /dev/null.
    pub stdin: bool,
}

/// Run a command in a container whose streams the asker has. The descriptors of those that are asked for
/// come in the order of the fields; the others are /dev/null. With a terminal none come: the plan makes it.
/// What the command leaves behind lives on, as long as there are few such commands.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStreamed {
    /// Which container.
    pub container: ContainerId,
    /// What the process does.
    pub plan: ExecPlan,
    /// The read end of a pipe comes.
    pub stdin: bool,
    /// The write end of a pipe comes.
    pub stdout: bool,
    /// Another one comes.
    pub stderr: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// Join a container's streams. The descriptors of those that are asked for come in the order of the fields.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a descriptor or a stream is there"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Which container.
    pub container: ContainerId,
    /// The read end of a pipe comes: what is in it goes to the container.
    pub stdin: bool,
    /// The write end of a pipe comes: it gets what the container prints from now on.
    pub stdout: bool,
    /// Likewise for standard error.
    pub stderr: bool,
    /// It is not started yet: wait for its start, so that nothing is missed. Ends with the connection.
    pub early: bool,
    /// A client that reads slowly holds the container up, for a while; else it loses its place at once.
    pub hold: bool,
}

/// Daemon to monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMonitor {
    /// First message: become the pod's monitor. Reply: `Ready`.
    Setup(PodPlan),
    /// Reply: `Launched` after the program was executed (`Started` in version 1), or `Failed`.
    Start(Box<Start>),
    /// Send a signal to the container's first process. Reply: `Done`, also when it is gone.
    Signal { container: ContainerId, signal: i32 },
    /// SIGKILL everything in the container's cgroup. Reply: `Done`.
    Kill { container: ContainerId },
    /// Write the log to this file from now on. Descriptor: the new log file. Reply: `Done` when the
    /// last byte went to the old one.
    Reopen { container: ContainerId },
    /// Reply: `ExecEnded` or `Failed`.
    Exec(Box<Exec>),
    /// Kill the exec that request `number` began. Reply: `Done`.
    KillExec { number: u64 },
    /// Reply: `State`.
    State,
    /// The container was removed: forget it. Reply: `Done`.
    Forget { container: ContainerId },
    /// Kill everything and leave. Reply: `Done`, then the socket closes.
    Quit,
    /// More descriptors for the `Start` with this number. No reply.
    Descriptors { number: u64 },
    /// Reply: `Done` once it gets what is printed, `Unknown` without such a container.
    Attach(Attach),
    /// The client that `number` attached closed its standard input. Reply: `Done`.
    EndInput { number: u64 },
    /// The client that `number` attached leaves. `keep_stdin`: it may come again, so a standard input that
    /// is to be closed after the first client stays open. Reply: `Done`.
    Detach { number: u64, keep_stdin: bool },
    /// The container's terminal has this size. Reply: `Done`.
    Resize { container: ContainerId, columns: u16, rows: u16 },
    /// Reply: `ExecBegan` or `Failed`; then the event `ExecOver`.
    ExecStreamed(Box<ExecStreamed>),
    /// Reply: `Done` with the descriptor of the pod's user namespace, or `Unknown` where it has none.
    LendUserNamespace,
    /// As `Start`, by a handler's program.
    StartBy(Box<StartBy>),
    /// As `Exec` or `ExecStreamed`, in a container that a handler's program started.
    ExecBy(Box<ExecBy>),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When.
    pub at: Nanos,
    /// Its code; 128 + n for death by signal n.
    pub code: i32,
    /// The container's cgroup counted an out-of-memory kill.
    pub oom: bool,
    /// Bytes of output that could not be written to the log (full disk).
    pub log_lost: u64,
}

/// What the monitor knows of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Which.
    pub container: ContainerId,
    /// Its first process.
    pub process: Process,
    /// When its program was executed; 0 = it is still being started. If that fails after whoever asked
    /// for it is gone, everybody is told `Exited` with code 128, and the journal says `NotStarted`.
    pub started: Nanos,
    /// Set once it ended and its output is in the log.
    pub exit: Option<Exit>,
}

/// How far a start was when, on `CLOCK_MONOTONIC` in nanoseconds: the same clock in every process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTimes {
    /// The monitor had the order.
    pub asked: u64,
    /// The clone was written down and began its walk.
    pub entered: u64,
    /// Its mounts were done.
    pub mounted: u64,
    /// Its walk was done, but for the filter.
    pub walked: u64,
    /// Its program was executed.
    pub executed: u64,
}

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    /// Its code; 128 + n for death by signal n.
    pub code: i32,
    /// True when its timeout killed it.
    pub timed_out: bool,
}

/// Monitor to daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromMonitor {
    /// The request was carried out.
    Done,
    /// It was not.
    Failed(Failure),
    /// No such container here.
    Unknown,
    /// The pod's namespaces exist; pod-init if there is one. Descriptor: the network namespace, if the
    /// monitor made it.
    Ready { monitor: Process, pod_init: Option<Process> },
    /// The container's program runs: the answer for version 1, which knows no times.
    Started { process: Process, at: Nanos },
    /// The exec ended.
    ExecEnded(ExecEnd),
    /// Everything known.
    State { pod_init: Option<Process>, containers: Vec<ContainerState> },
    /// Event: a container ended (already in the journal).
    Exited { container: ContainerId, exit: Exit },
    /// Event: pod-init ended; the pod is dead.
    PodInitExited { at: Nanos },
    /// Event: a container was started whose asker is gone.
    Runs { container: ContainerId, process: Process, at: Nanos },
    /// The command of an `ExecStreamed` is executed. Descriptor: its terminal, if it was asked for.
    ExecBegan,
    /// Event for the asker: the command of the `ExecStreamed` with this number ended.
    ExecOver { number: u64, end: ExecEnd },
    /// Event for the asker: the client of the `Attach` with this number did not read, and lost its place.
    AttachLost { number: u64 },
    /// The container's program runs, and how its start went.
    Launched { process: Process, at: Nanos, times: StartTimes },
}

impl FromMonitor {
    /// The container's program runs, for a side of this version.
    pub const fn runs(version: u8, (process, at): (Process, Nanos), times: StartTimes) -> Self {
        if version < 2 {
            Self::Started { process, at }
        } else {
            Self::Launched { process, at, times }
        }
    }
}

/// One entry of the journal `STATE/pods/ID/journal`, the monitor's own record: appended as a checked
/// frame (`record::frame`) before anybody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Journal {
    /// The monitor runs.
    Monitor { process: Process },
    /// pod-init runs.
    PodInit { process: Process },
    /// A child was cloned; its program is not yet executed.
    Cloned { container: ContainerId, process: Process },
    /// Its program runs.
    Started { container: ContainerId, process: Process, at: Nanos },
    /// It could not be executed.
    NotStarted { container: ContainerId, at: Nanos, failure: Failure },
    /// It ended.
    Exited { container: ContainerId, exit: Exit },
    /// pod-init ended.
    PodInitExited { at: Nanos },
}

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is too old or too new.
    #[error("message has version {0}, this build understands {oldest} to {VERSION}", oldest = oldest())]
    Version(u8),
    /// The shape is unknown.
    #[error("read a message")]
    Read(#[source] postcard::Error),
    /// A value that has no form on the wire.
    #[error("write a message")]
    Write(#[source] postcard::Error),
}

/// The oldest version that is understood.
pub const fn oldest() -> u8 {
    VERSION.saturating_sub(1)
}

/// The bytes of a message of this version.
pub fn encode<T: Serialize>(number: u64, body: &T) -> Result<Vec<u8>, WireError> {
    encode_as(VERSION, number, body)
}

/// The bytes of a message for a side of this version, which knows its body.
pub fn encode_as<T: Serialize>(version: u8, number: u64, body: &T) -> Result<Vec<u8>, WireError> {
    postcard::to_allocvec(&Frame { version, number, body }).map_err(WireError::Write)
}

/// Reads a message of this version or the one before; the version is the first byte.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Frame<T>, WireError> {
    let version = bytes.first().copied().unwrap_or(0);
    if version < oldest() || version > VERSION {
        return Err(WireError::Version(version));
    }
    postcard::from_bytes(bytes).map_err(WireError::Read)
}

/// The bytes of one journal entry, ready to be appended.
pub fn encode_journal(entry: &Journal) -> Result<Vec<u8>, WireError> {
    postcard::to_allocvec(entry).map(|bytes| crate::record::frame(&bytes)).map_err(WireError::Write)
}

/// The entries of a journal, and how many bytes at its end could not be used. An entry of an unknown
/// shape ends the reading, as a torn one does.
pub fn decode_journal(file: &[u8]) -> (Vec<Journal>, usize) {
    let (payloads, mut torn) = crate::record::frames(file);
    let mut entries = Vec::with_capacity(payloads.len());
    for payload in &payloads {
        match postcard::from_bytes(payload) {
            Ok(entry) => entries.push(entry),
            Err(_) => break,
        }
    }
    let unread = payloads.iter().skip(entries.len()).map(|payload| payload.len().saturating_add(8));
    torn = torn.saturating_add(unread.sum());
    (entries, torn)
}

#[cfg(test)]
mod tests {
    use super::{
        FromMonitor, Journal, Process, StartTimes, ToMonitor, VERSION, WireError, decode,
        decode_journal, encode, encode_as, encode_journal, oldest,
    };
    use crate::plan::{CapabilitySets, Step};

    #[test]
    fn a_message_survives_the_way_and_keeps_its_number() {
        let body = FromMonitor::Started { process: Process { pid: 7, start: 9 }, at: 11 };
        let frame = decode::<FromMonitor>(&encode(42, &body).unwrap()).unwrap();
        assert_eq!((frame.version, frame.number, frame.body), (VERSION, 42, body));
    }

    #[test]
    fn a_later_version_and_rubbish_are_refused() {
        let mut bytes = encode(1, &FromMonitor::Done).unwrap();
        bytes[0] = VERSION + 1;
        assert!(
            matches!(decode::<FromMonitor>(&bytes), Err(WireError::Version(v)) if v == VERSION + 1)
        );
        assert!(matches!(decode::<FromMonitor>(&[VERSION, 0xff]), Err(WireError::Read(_))));
    }

    #[test]
    fn what_version_1_says_stands_where_it_stood() {
        let process = Process { pid: 1, start: 2 };
        let bytes = |body: &ToMonitor| encode_as(1, 9, body).unwrap();
        assert_eq!(bytes(&ToMonitor::State), [1, 9, 7]);
        assert_eq!(bytes(&ToMonitor::Descriptors { number: 3 }), [1, 9, 10, 3]);
        let last = FromMonitor::PodInitExited { at: 0 };
        assert_eq!(encode_as(1, 0, &last).unwrap(), [1, 0, 8, 0]);
        assert_eq!(decode::<FromMonitor>(&[1, 0, 8, 0]).unwrap().body, last);
        let started = |version| FromMonitor::runs(version, (process, 7), StartTimes::default());
        assert_eq!(encode_as(1, 9, &started(1)).unwrap(), [1, 9, 4, 2, 2, 14]);
        assert!(
            matches!(started(2), FromMonitor::Launched { process: same, at: 7, .. } if same == process)
        );
        let entry = postcard::to_allocvec(&Journal::Monitor { process }).unwrap();
        assert_eq!(entry, [0, 2, 2]);
        let (uid, gid, capabilities) = (0, 0, CapabilitySets::default());
        let step = Step::Verify { uid, gid, capabilities, no_new_privs: false };
        assert_eq!(postcard::to_allocvec(&step).unwrap().first(), Some(&23));
        assert!(oldest() <= 1, "the places may be given up with the version that had them");
    }

    #[test]
    fn a_journal_is_read_up_to_the_torn_entry() {
        let entry = Journal::PodInitExited { at: 5 };
        let mut file = encode_journal(&entry).unwrap();
        let one = file.len();
        file.extend(encode_journal(&entry).unwrap());
        assert_eq!(decode_journal(&file), (vec![entry.clone(), entry.clone()], 0));
        assert_eq!(decode_journal(&file[..one + 3]), (vec![entry], 3));
    }
}
