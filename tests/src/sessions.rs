//! Sessions through our own API: a command, or an attached container, with its streams in a test's hands.
//! Dropped, the client is gone, as if it had been killed. What is heard is kept, so that a test waits for a
//! text and not for a message.

use crate::cri::Cri;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Say;
use shim_proto::wherry_v1::session_output::What as Told;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

/// A session that began.
#[derive(Debug)]
pub struct Session<'c> {
    cri: &'c Cri,
    say: mpsc::Sender<own::SessionInput>,
    told: Streaming<own::SessionOutput>,
    /// What the daemon said of it.
    pub began: own::Began,
    /// What was heard and not asked for yet.
    heard: String,
    /// Standard error so far.
    pub errors: String,
    ended: Option<i32>,
}

/// A command with all streams, or with a terminal of 80 columns and 24 rows.
pub fn exec(id: &str, command: &[&str], tty: bool) -> Say {
    Say::Exec(own::ExecBegin {
        container_id: id.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
        size: Some(own::WindowSize { columns: 80, rows: 24 }),
    })
}

/// Everything that a container has.
pub fn attach(id: &str) -> Say {
    let container_id = id.to_owned();
    let (stdin, stdout, stderr, start) = (true, true, true, false);
    Say::Attach(own::AttachBegin { container_id, stdin, stdout, stderr, start, size: None })
}

impl Cri {
    /// Begins a session.
    pub fn session(&self, begin: Say) -> Result<Session<'_>, Status> {
        let (say, said) = mpsc::channel(4);
        let first = own::SessionInput { what: Some(begin) };
        let told = self.wait(async {
            say.send(first).await.unwrap();
            let next = |mut said: mpsc::Receiver<_>| async move {
                said.recv().await.map(|message| (message, said))
            };
            let said = futures_util::stream::unfold(said, next);
            self.own().session(said).await
        })?;
        let began = own::Began::default();
        let (heard, errors, ended) = (String::new(), String::new(), None);
        let told = told.into_inner();
        let mut session = Session { cri: self, say, told, began, heard, errors, ended };
        match session.next()? {
            Some(Told::Began(began)) => session.began = began,
            other => panic!("{other:?}"),
        }
        Ok(session)
    }

    /// Sends a signal to a container's first process.
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), Status> {
        let request = own::SignalRequest { container_id: id.to_owned(), signal };
        self.wait(async { self.own().signal(request).await }).map(drop)
    }
}

impl Session<'_> {
    fn tell(&self, what: Say) {
        let message = own::SessionInput { what: Some(what) };
        self.cri.wait(async { self.say.send(message).await }).unwrap();
    }

    /// Likewise, to a daemon that may be out of reach; false = it is.
    pub fn try_say(&self, text: &str) -> bool {
        let what = Some(Say::Stdin(text.as_bytes().to_vec()));
        self.cri.wait(async { self.say.send(own::SessionInput { what }).await }).is_ok()
    }

    /// Takes the next message if there is one soon.
    pub fn listen(&mut self) {
        let told = &mut self.told;
        let soon = Duration::from_millis(5);
        drop(self.cri.wait(async { tokio::time::timeout(soon, told.message()).await }));
    }

    /// Says something on standard input.
    pub fn say(&self, text: &str) {
        self.tell(Say::Stdin(text.as_bytes().to_vec()));
    }

    /// Closes standard input.
    pub fn end_input(&self) {
        self.tell(Say::StdinEnded(own::StdinEnded {}));
    }

    /// Has another window.
    pub fn resize(&self, columns: u32, rows: u32) {
        self.tell(Say::Size(own::WindowSize { columns, rows }));
    }

    /// Leaves the container as it is; comes back when the daemon has let go.
    pub fn detach(mut self) {
        self.tell(Say::Detach(own::Detach {}));
        while let Some(told) = self.next().unwrap() {
            assert!(matches!(told, Told::Stdout(_) | Told::Stderr(_)), "{told:?}");
        }
    }

    fn next(&mut self) -> Result<Option<Told>, Status> {
        let late = Status::new(Code::DeadlineExceeded, "the session says nothing");
        let told = &mut self.told;
        let message = self.cri.wait(async {
            tokio::time::timeout(Duration::from_secs(30), told.message()).await.unwrap_or(Err(late))
        })?;
        Ok(message.and_then(|message| message.what))
    }

    /// Waits until `text` was said, and takes everything up to its end.
    pub fn hears(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(text) {
                let rest = self.heard.split_off(at + text.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            let next = self.next().unwrap();
            assert!(self.take(next), "it ended before {text:?}: {:?}", self.heard);
        }
    }

    fn take(&mut self, told: Option<Told>) -> bool {
        match told {
            Some(Told::Stdout(bytes)) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Told::Stderr(bytes)) => self.errors.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Told::Ended(end)) => self.ended = Some(end.exit_code),
            Some(Told::Began(_)) | None => return false,
        }
        true
    }

    /// Waits for the end: everything that was still said, and the code.
    pub fn end(mut self) -> Result<(String, String, i32), Status> {
        loop {
            let next = self.next()?;
            if !self.take(next) {
                let code = self.ended.expect("an end");
                return Ok((self.heard, self.errors, code));
            }
        }
    }
}
