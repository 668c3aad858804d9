//! A terminal with a person in front of it: a pseudo-terminal whose master types and looks. A program that
//! is started on it has it as its controlling terminal, so that keys and window sizes are signals to it.
//! Relies on util-linux and on stty.

use crate::space::{Space, children};
use crate::until;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A terminal.
#[derive(Debug)]
pub struct Pty {
    keys: File,
    peer: OwnedFd,
    screen: Seen,
}

/// What a stream printed so far, read as it comes.
#[derive(Debug)]
pub struct Seen(Arc<Mutex<String>>);

impl Seen {
    /// Reads it until its end.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let all = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&all);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self(all)
    }

    /// Waits until `text` is seen, and takes everything up to its end.
    pub fn shows(&self, text: &str) -> String {
        until(&format!("{text:?}"), || self.take(text))
    }

    /// Likewise, if it is seen already.
    pub fn take(&self, text: &str) -> Option<String> {
        let mut all = self.0.lock().unwrap();
        let rest = all.find(text)? + text.len();
        let rest = all.split_off(rest);
        Some(std::mem::replace(&mut *all, rest))
    }
}

impl Pty {
    /// A terminal of 80 columns and 24 lines.
    pub fn new() -> Self {
        let pty = openpty(None, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            // Else every program that is started from here would hold it open.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let screen = Seen::of(File::from(pty.master.try_clone().unwrap()));
        let terminal = Self { keys: File::from(pty.master), peer: pty.slave, screen };
        terminal.resize(80, 24);
        terminal
    }

    /// Starts a program in a space with this as its terminal. It is the only child of what is started.
    pub fn start(&self, space: &Space, program: &Path, arguments: &[&str]) -> Child {
        let mut command = space.command(Path::new("setsid"));
        command.args(["--ctty", "--wait"]).arg(program).args(arguments);
        command.stdin(self.end()).stdout(self.end()).stderr(self.end());
        command.spawn().unwrap()
    }

    fn end(&self) -> Stdio {
        Stdio::from(self.peer.try_clone().unwrap())
    }

    /// Presses keys.
    pub fn types(&self, keys: &str) {
        (&self.keys).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is seen, and takes everything up to its end off the screen.
    pub fn shows(&self, text: &str) -> String {
        self.screen.shows(text)
    }

    /// Gives the window another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.stty(&["cols", &columns.to_string(), "rows", &rows.to_string()]);
    }

    /// Its mode, as text that is equal for equal modes.
    pub fn mode(&self) -> String {
        self.stty(&["-g"])
    }

    fn stty(&self, arguments: &[&str]) -> String {
        let done = Command::new("stty").args(arguments).stdin(self.end()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Default for Pty {
    fn default() -> Self {
        Self::new()
    }
}

/// The program that runs inside, started by [`Pty::start`] or [`Space::command`], as this process sees its
/// number.
pub fn program(started: &Child) -> u32 {
    until("the program", || children(started.id()).first().copied())
}
