//! The zygote: one thread, started before the daemon has any, holding nothing but its socket. It lives
//! in a tiny mount namespace of its own, so that every namespace copied from it is tiny, and clones a
//! monitor whenever the daemon asks. It ends when the daemon's end of the socket closes; its monitors
//! do not. It never executes a program and knows no container.

use crate::error::{ChildError, failure, telling};
use crate::monitor;
use shim_model::limits;
use shim_model::wire::{self, Failure, FromZygote, Process, ToZygote};
use shim_sys::mount::{self, Flags, NewFs, Propagation};
use shim_sys::namespace::{self, Namespace};
use shim_sys::poll::{Interest, Poll};
use shim_sys::process::{CloneInto, Cloned, Ended};
use shim_sys::rooted::{self, Device, Make};
use shim_sys::socket::{Bounds, Packet};
use shim_sys::{credentials, fd, process, signal, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// What one of our own messages may measure.
pub(crate) const BOUNDS: Bounds =
    Bounds { inline: limits::WIRE_MESSAGE_BYTES, memory: limits::WIRE_PAYLOAD_BYTES };

const SOCKET: u64 = 1;
const CHILDREN: u64 = 2;

/// The role `wherry zygote`: serves until the daemon closes its end. Prints its own failure to
/// standard error, which is the daemon's.
pub fn zygote_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("zygote: {error}");
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            drop(fd::write_all(std::io::stderr(), format!("{text}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), ChildError> {
    let socket = fd::take_well_known().ok_or(ChildError::NoSocket)?;
    signal::default_all();
    signal::block_all().map_err(ChildError::system("block signals"))?;
    credentials::not_dumpable().map_err(ChildError::system("become not dumpable"))?;
    credentials::set_name(c"wherry-zygote").map_err(ChildError::system("take a name"))?;
    credentials::new_session().map_err(ChildError::system("leave the daemon's session"))?;
    tiny_root().map_err(ChildError::system("make a tiny mount namespace"))?;
    serve(&socket)
}

/// A mount namespace that holds what a pod needs and nothing of the node's: `/proc`, `/dev/null`, the
/// attach points `/r` (a container's root), `/shm` and `/sys`.
fn tiny_root() -> Result<(), shim_sys::error::SysError> {
    namespace::unshare(&[Namespace::Mount])?;
    mount::change_path(c"/", Propagation::Private)?;
    let root = mount::tmpfs(&[(c"mode", c"0755"), (c"size", c"64k")], Flags::NOSUID)?;
    mount::attach_path(&root, c"/")?;
    mount::pivot(&root)?;
    credentials::set_umask(0);
    for folder in [c"/proc", c"/r", c"/shm", c"/dev", c"/sys"] {
        rooted::ensure(&root, folder, Make::Folder(0o755))?;
    }
    let null = Device { block: false, number: (1, 3), mode: 0o666, owner: (0, 0) };
    rooted::device(&root, c"/dev/null", null)?;
    credentials::set_umask(0o022);
    let guarded = Flags::NOSUID.and(Flags::NODEV).and(Flags::NOEXEC);
    let proc = NewFs::open(c"proc")?;
    proc.text(c"source", c"proc")?;
    mount::attach_path(proc.mount(guarded)?, c"/proc")
}

fn serve(socket: &OwnedFd) -> Result<(), ChildError> {
    let polling = ChildError::system;
    let poll = Poll::new().map_err(polling("make a poll set"))?;
    let children = signal::child_descriptor().map_err(polling("watch for ended monitors"))?;
    poll.add(socket, SOCKET, Interest::Read).map_err(polling("watch the socket"))?;
    poll.add(&children, CHILDREN, Interest::Read).map_err(polling("watch for ended monitors"))?;
    let mut events = Vec::new();
    loop {
        events.clear();
        poll.wait(&mut events, None).map_err(polling("wait for a request"))?;
        for event in &events {
            if event.token == CHILDREN {
                signal::drain(&children);
                reap();
            } else if !answer(socket)? {
                return Ok(());
            }
        }
    }
}

/// Reaps every monitor that ended; the daemon learns of it by its own descriptor of the monitor.
fn reap() {
    while let Ok(Ended::Child(pid)) = process::ended_child(false) {
        if process::reap_number(pid).is_err() {
            return;
        }
    }
}

/// Takes one request; false = the daemon closed its end.
fn answer(socket: &OwnedFd) -> Result<bool, ChildError> {
    let receive = socket::recv(socket, BOUNDS).map_err(ChildError::system("receive a request"))?;
    let Some(packet) = receive else { return Ok(false) };
    let (number, forked) = match wire::decode::<ToZygote>(&packet.bytes) {
        Ok(frame) => match frame.body {
            ToZygote::Fork { sandbox: _ } => (frame.number, fork(packet)),
        },
        Err(error) => {
            let failure = Failure { step: error.to_string(), errno: 0, exec: false };
            (0, Err(failure))
        }
    };
    let (body, pidfd) = match forked {
        Ok((process, pidfd)) => (FromZygote::Forked { process }, Some(pidfd)),
        Err(failure) => (FromZygote::Failed(failure), None),
    };
    let wire = |source| ChildError::Wire { doing: "answer the daemon", source };
    let bytes = wire::encode(number, &body).map_err(wire)?;
    let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
    socket::send(socket, &bytes, &fds, BOUNDS.inline)
        .map_err(ChildError::system("answer the daemon"))?;
    Ok(true)
}

fn fork(packet: Packet) -> Result<(Process, OwnedFd), Failure> {
    let [listener, journal] = <[OwnedFd; 2]>::try_from(packet.fds).map_err(|fds| Failure {
        step: format!("fork a monitor: 2 descriptors are needed, {} came", fds.len()),
        errno: 0,
        exec: false,
    })?;
    match process::clone3(CloneInto::default()).map_err(telling("fork a monitor"))? {
        Cloned::Child => {
            let code = monitor::run(listener, journal);
            process::exit_now(code)
        }
        Cloned::Parent { pid, pidfd } => {
            let start = process::start_time(pid)
                .map_err(|error| failure("read when the monitor began", &error))?;
            Ok((Process { pid, start }, pidfd))
        }
    }
}
