//! The walk: what a fresh clone does to become a container's program. It carries out a finished plan,
//! step by step, allocates nothing unless a call fails, has no choice left, and ends in exec or in one
//! message that names the step and the errno. The mount steps are `mounts.rs`.

use crate::error::failure;
use crate::explain::explain;
use crate::label::Labels;
use crate::mounts::bad_plan;
use crate::times::{WalkTimes, moment};
use shim_model::plan::{CapabilitySets, Slot, Step};
use shim_model::wire::Failure;
use shim_sys::credentials::{self, Capabilities, Limit};
use shim_sys::error::{Errno, SysError};
use shim_sys::fd::{self, Standard};
use shim_sys::process::Arguments;
use shim_sys::tty::{self, Pty, Size};
use shim_sys::{process, rooted, seccomp, signal, socket};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Everything a clone needs, laid out before it is cloned.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    /// The plan's descriptors, in slot order.
    pub(crate) slots: &'a [OwnedFd],
    /// Standard input, output and error to be.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// `/proc/self/oom_score_adj`, opened where nobody can have mounted over it.
    pub(crate) oom_score: Option<OwnedFd>,
    /// Where labels are told, opened likewise.
    pub(crate) labels: Labels,
    /// Where the root is, once it is attached.
    pub(crate) root: Option<Slot>,
    /// The root is this process's root.
    pub(crate) pivoted: bool,
    /// The pod's shared memory, taken along from the monitor's mounts.
    pub(crate) shm: Option<OwnedFd>,
    /// The umask to leave; during the walk it is 0, so that modes are what the plan says.
    pub(crate) umask: u32,
    /// The terminal's peer, once it is made.
    pub(crate) terminal: Option<OwnedFd>,
    /// The talk with the monitor.
    told: Option<BorrowedFd<'a>>,
}

/// The program to become.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    /// Paths to try.
    pub(crate) paths: &'a [CString],
    /// Its arguments and environment.
    pub(crate) arguments: Arguments,
}

/// The steps of a plan: those of the mount chapter first, none for an exec.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chapters<'a> {
    /// Namespaces, mounts, files.
    pub(crate) mounts: &'a [Step],
    /// Limits, credentials, filter.
    pub(crate) process: &'a [Step],
}

/// Where a walk ended.
#[derive(Debug)]
pub(crate) struct Fault {
    place: Place,
    errno: i32,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Entry,
    Mounts(u16),
    Process(u16),
    Exec,
}

/// Message of the child: the walk is done, the program is about to be executed. [`WalkTimes`]
/// follow.
const WALKED: u8 = 0;
/// Message of the child: here is the master of its terminal.
const TERMINAL: u8 = 5;
/// Longest text of a fault.
const TEXT: usize = 512;

impl<'a> Walk<'a> {
    pub(crate) const fn new(slots: &'a [OwnedFd], streams: [BorrowedFd<'a>; 3]) -> Self {
        let (oom_score, root, terminal, told, shm) = (None, None, None, None, None);
        let (pivoted, umask, labels) = (false, 0o022, Labels::NONE);
        Self { slots, streams, oom_score, labels, root, pivoted, shm, umask, terminal, told }
    }

    /// Walks the plan and becomes the program; comes back only with the reason why not.
    pub(crate) fn become_program(
        mut self,
        chapters: Chapters<'_>,
        program: &Candidates<'_>,
        told: &'a OwnedFd,
    ) -> Fault {
        self.told = Some(told.as_fd());
        match self.walk(chapters, told) {
            Ok(()) => execute(program),
            Err(fault) => fault,
        }
    }

    fn walk(&mut self, chapters: Chapters<'_>, told: &OwnedFd) -> Result<(), Fault> {
        let entered = moment();
        self.enter().map_err(Fault::at(Place::Entry))?;
        for (index, step) in (0_u16..).zip(chapters.mounts) {
            self.step(step).map_err(Fault::at(Place::Mounts(index)))?;
        }
        let mounted = moment();
        // A filter may forbid our own last calls, so they come before the last step.
        let (last, steps) = match chapters.process.split_last() {
            Some((last, steps)) if matches!(last, Step::Seccomp { .. }) => (Some(last), steps),
            _ => (None, chapters.process),
        };
        for (index, step) in (0_u16..).zip(steps) {
            self.step(step).map_err(Fault::at(Place::Process(index)))?;
        }
        self.leave(told, (entered, mounted)).map_err(Fault::at(Place::Entry))?;
        let index = u16::try_from(steps.len()).unwrap_or(u16::MAX);
        last.map_or(Ok(()), |step| self.step(step).map_err(Fault::at(Place::Process(index))))
    }

    /// First of all. A session of its own, because a signal to "my process group" would else reach the
    /// monitor.
    fn enter(&self) -> Result<(), SysError> {
        credentials::new_session()?;
        credentials::set_umask(0);
        let [input, output, error] = self.streams;
        fd::place(input, Standard::Input)?;
        fd::place(output, Standard::Output)?;
        fd::place(error, Standard::Error)
    }

    /// Last of all: nothing but the standard streams survives, no signal is blocked, the monitor knows
    /// that only the filter and exec are left. A fault after this is still told.
    fn leave(&self, told: &OwnedFd, (entered, mounted): (u64, u64)) -> Result<(), SysError> {
        credentials::set_umask(self.umask);
        signal::unblock_all()?;
        fd::close_all_on_exec()?;
        fd::write_all(told, &WalkTimes { entered, mounted, walked: moment() }.message(WALKED))
    }

    fn step(&mut self, step: &Step) -> Result<(), SysError> {
        if self.mount_step(step)? {
            return Ok(());
        }
        self.process_step(step)
    }

    fn process_step(&mut self, step: &Step) -> Result<(), SysError> {
        match step {
            Step::OomScoreAdj(score) => self.set_oom_score(*score),
            Step::Rlimit(limit) => {
                set_limit(limit.resource, Limit { soft: limit.soft, hard: limit.hard })
            }
            // It leads a session since it was cloned.
            Step::Session => credentials::new_session(),
            Step::Keyring => credentials::new_keyring(),
            Step::Umask(mask) => {
                self.umask = *mask;
                Ok(())
            }
            Step::NoNewPrivs => credentials::no_new_privs(),
            Step::Bounding(keep) => credentials::limit_bounding(*keep),
            Step::User { uid, gid, groups } => self.become_user(*uid, *gid, groups),
            Step::Capabilities(sets) => set_capabilities(*sets),
            Step::Chdir(path) => credentials::change_folder(path),
            Step::Seccomp { filter, log } => seccomp::install(filter, *log),
            Step::Verify { uid, gid, capabilities, no_new_privs } => {
                verify((*uid, *gid), *capabilities, *no_new_privs)
            }
            Step::Label { module, label } => self.labels.tell(*module, label),
            Step::Terminal { columns, rows } => {
                self.make_terminal(Size { columns: *columns, rows: *rows })
            }
            Step::CgroupNamespace
            | Step::AttachRoot { .. }
            | Step::Bind { .. }
            | Step::NewFs { .. }
            | Step::PodShm { .. }
            | Step::Folder { .. }
            | Step::Link { .. }
            | Step::Device { .. }
            | Step::Mask { .. }
            | Step::ReadonlyPath { .. }
            | Step::ReadonlyRoot
            | Step::Console
            | Step::Pivot
            | Step::NodeMounts { .. }
            | Step::AttachRootAt { .. }
            | Step::Hook { .. } => Err(bad_plan("a mount step among the process steps")),
        }
    }

    fn set_oom_score(&self, score: i32) -> Result<(), SysError> {
        let file = self.oom_score.as_ref().ok_or_else(|| bad_plan("no score file"))?;
        // Decimal without leading zeros: the kernel would read those as octal.
        let (mut text, mut rest, mut at) = ([0_u8; 12], score.unsigned_abs(), 12_usize);
        while rest > 0 || at == 12 {
            at = at.saturating_sub(1);
            if let Some(place) = text.get_mut(at) {
                *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            }
            rest /= 10;
        }
        if score < 0 {
            at = at.saturating_sub(1);
            text.get_mut(at).into_iter().for_each(|place| *place = b'-');
        }
        let text = text.get(at..).unwrap_or_default();
        match fd::write_all(file, text) {
            // Lowering it takes CAP_SYS_RESOURCE; a runtime without it starts containers all the same.
            Err(error) if matches!(error.errno(), Errno::EACCES | Errno::EPERM) => Ok(()),
            done => done,
        }
    }

    /// The session leader's terminal in the container's own devpts. The monitor has the master before any
    /// of the container's code runs.
    fn make_terminal(&mut self, size: Size) -> Result<(), SysError> {
        let Pty { master, peer } = if self.root.is_some() && !self.pivoted {
            tty::open(self.root()?)?
        } else {
            tty::open(rooted::here()?)?
        };
        if size != Size::default() {
            tty::set_size(&master, size)?;
        }
        tty::take_control(&peer)?;
        for stream in [Standard::Input, Standard::Output, Standard::Error] {
            fd::place(&peer, stream)?;
        }
        let told = self.told.ok_or_else(|| bad_plan("a terminal for nobody"))?;
        socket::send_one(told, &[TERMINAL], master.as_fd())?;
        self.terminal = Some(peer);
        Ok(())
    }

    fn become_user(&self, uid: u32, gid: u32, groups: &[u32]) -> Result<(), SysError> {
        for stream in self.streams {
            credentials::give_pipe(stream, uid);
        }
        if let Some(terminal) = self.terminal.as_ref().filter(|_| uid != 0) {
            tty::give(terminal, uid)?;
        }
        credentials::keep_capabilities()?;
        credentials::set_groups(groups)?;
        credentials::set_gid(gid)?;
        credentials::set_uid(uid)?;
        // A change of ids sets it to what /proc/sys/fs/suid_dumpable says; until exec, others with these
        // ids must not reach what is held here.
        credentials::not_dumpable()
    }
}

fn set_limit(resource: u32, wanted: Limit) -> Result<(), SysError> {
    match credentials::set_limit(resource, wanted) {
        Err(error) if error.errno() == Errno::EPERM => {
            let hard = credentials::limit(resource)?.hard.min(wanted.hard);
            let soft = wanted.soft.min(hard);
            credentials::set_limit(resource, Limit { soft, hard })
        }
        done => done,
    }
}

fn set_capabilities(sets: CapabilitySets) -> Result<(), SysError> {
    let (effective, permitted) = (sets.effective, sets.permitted);
    let inheritable = sets.inheritable;
    credentials::set_capabilities(Capabilities { effective, permitted, inheritable })?;
    credentials::set_ambient(sets.ambient)
}

fn verify(
    (uid, gid): (u32, u32),
    wanted: CapabilitySets,
    no_new_privs: bool,
) -> Result<(), SysError> {
    let bounding = credentials::bounding()?;
    let known = bounding.known;
    let have = credentials::capabilities()?;
    let differs = |what| Err(SysError::new("verify", what, Errno::EPERM));
    if !credentials::ids_are(uid, gid)? {
        return differs("user and group are not the ones that were set");
    }
    if have.effective != wanted.effective & known || have.permitted != wanted.permitted & known {
        return differs("capabilities are not the ones that were set");
    }
    if have.inheritable != wanted.inheritable & known
        || credentials::ambient(have)? != wanted.ambient & known
    {
        return differs("inherited capabilities are not the ones that were set");
    }
    if bounding.set != wanted.bounding & known {
        return differs("the bounding set is not the one that was set");
    }
    if credentials::has_no_new_privs()? != no_new_privs {
        return differs("no_new_privs is not what was set");
    }
    Ok(())
}

/// Tries each candidate. The most telling errno is one that says more than "not there".
fn execute(program: &Candidates<'_>) -> Fault {
    let mut telling = Errno::ENOENT;
    for path in program.paths {
        match process::execve(path, &program.arguments) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => telling = Errno::EACCES,
            errno => return Fault { place: Place::Exec, errno: errno as i32, text: String::new() },
        }
    }
    Fault { place: Place::Exec, errno: telling as i32, text: String::new() }
}

// === impl Fault ===

/// What a child had to say.
#[derive(Debug)]
pub(crate) enum Said {
    /// It is about to execute the program.
    Walked(WalkTimes),
    /// The master of its terminal comes along.
    Terminal,
    /// It could not.
    Fault(Fault),
}

impl Fault {
    fn at(place: Place) -> impl FnOnce(SysError) -> Self {
        move |error| Self { place, errno: error.errno() as i32, text: error.to_string() }
    }

    /// A failure before the first step.
    pub(crate) fn entry(error: &SysError) -> Self {
        let (errno, text) = (error.errno() as i32, error.to_string());
        Self { place: Place::Entry, errno, text }
    }

    /// Tells the monitor and ends the process.
    pub(crate) fn tell(&self, told: &OwnedFd) -> ! {
        let (place, index) = match self.place {
            Place::Entry => (1, 0),
            Place::Mounts(index) => (2, index),
            Place::Process(index) => (3, index),
            Place::Exec => (4, 0),
        };
        let mut message = vec![place];
        message.extend_from_slice(&index.to_ne_bytes());
        message.extend_from_slice(&self.errno.to_ne_bytes());
        message.extend(self.text.bytes().take(TEXT));
        drop(fd::write(told, &message));
        process::exit_now(127)
    }

    /// Reads what a child said; nothing understandable is a fault as well.
    pub(crate) fn said(message: &[u8]) -> Said {
        let Some((place, rest)) = message.split_first() else {
            return Said::Fault(Self::entry(&bad_plan("an empty message")));
        };
        if *place == WALKED {
            return Said::Walked(WalkTimes::read(rest));
        }
        if *place == TERMINAL {
            return Said::Terminal;
        }
        let fields = rest.split_first_chunk::<2>().and_then(|(index, rest)| {
            let (errno, text) = rest.split_first_chunk::<4>()?;
            Some((u16::from_ne_bytes(*index), i32::from_ne_bytes(*errno), text))
        });
        let (index, errno, text) = fields.unwrap_or((0, 0, b"an unknown message"));
        let place = match place {
            2 => Place::Mounts(index),
            3 => Place::Process(index),
            4 => Place::Exec,
            _ => Place::Entry,
        };
        Said::Fault(Self { place, errno, text: String::from_utf8_lossy(text).into_owned() })
    }

    /// The whole story: the step in words, the call, the errno.
    pub(crate) fn explain(&self, chapters: Chapters<'_>, program: &[CString]) -> Failure {
        let step = |steps: &[Step], index: u16| {
            steps.get(usize::from(index)).map_or_else(|| "a step".to_owned(), explain)
        };
        let step = match self.place {
            Place::Entry => "prepare the process".to_owned(),
            Place::Mounts(index) => step(chapters.mounts, index),
            Place::Process(index) => step(chapters.process, index),
            Place::Exec => {
                let names: Vec<_> = program.iter().map(|path| path.to_string_lossy()).collect();
                let step = format!("execve({})", names.join(", "));
                return Failure { step, errno: self.errno, exec: true };
            }
        };
        let call = if self.text.is_empty() { String::new() } else { format!(": {}", self.text) };
        Failure { step: format!("{step}{call}"), errno: self.errno, exec: false }
    }
}

/// The process ended before it said anything: killed from outside, or out of memory.
pub(crate) fn vanished() -> Failure {
    failure("prepare the process", &SysError::new("walk", "it was killed", Errno::ESRCH))
}

/// A message of a child is no longer than this.
pub(crate) const SAID_BYTES: usize = 7 + TEXT;

#[cfg(test)]
mod tests {
    use super::{Chapters, Fault, Place, Said, TERMINAL, WALKED, Walk};
    use crate::times::WalkTimes;
    use shim_model::plan::Step;
    use std::os::fd::AsFd;

    const STEPS: Chapters<'_> = Chapters { mounts: &[Step::ReadonlyRoot], process: &[] };

    #[test]
    fn a_fault_is_told_with_its_step_and_call() {
        let mut message = vec![2, 0, 0];
        message.extend(13_i32.to_ne_bytes());
        message.extend(b"mount_setattr(/r)");
        let Said::Fault(fault) = Fault::said(&message) else { unreachable!() };
        let failure = fault.explain(STEPS, &[]);
        assert_eq!(failure.step, "make the root file system read-only: mount_setattr(/r)");
        assert_eq!((failure.errno, failure.exec), (13, false));
    }

    #[test]
    fn a_missing_program_is_the_containers_own_fault() {
        let fault = Fault { place: Place::Exec, errno: 2, text: String::new() };
        let failure = fault.explain(STEPS, &[c"/bin/x".to_owned()]);
        assert_eq!((failure.step.as_str(), failure.exec), ("execve(/bin/x)", true));
        let times = WalkTimes { entered: 1, mounted: u64::MAX, walked: 3 };
        let Said::Walked(told) = Fault::said(&times.message(WALKED)) else { unreachable!() };
        assert_eq!(told, times);
        assert!(matches!(Fault::said(&[TERMINAL]), Said::Terminal));
        assert!(matches!(Fault::said(&[]), Said::Fault(_)));
    }

    #[test]
    fn scores_are_written_as_the_kernel_reads_them() {
        for (score, text) in [(-998, "-998"), (0, "0"), (1000, "1000"), (7, "7")] {
            let file = tempfile::tempfile().unwrap();
            let mut walk = Walk::new(&[], [file.as_fd(); 3]);
            walk.oom_score = Some(file.try_clone().unwrap().into());
            walk.set_oom_score(score).unwrap();
            let mut buffer = [0; 16];
            let written = shim_sys::fd::read_start(&file, &mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(written), Ok(text));
        }
    }
}
