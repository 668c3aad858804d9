//! Containers and pods for tests: a command is a task of this process, so its bytes can be counted and
//! time can stand still; `sh` is a real one. A pod has ports that answer in known ways.

use crate::error::DaemonError;
use crate::streaming::session::{Backend, Duplex, Exit, Session, Streams, WindowSize};
use futures_util::FutureExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{broadcast, mpsc};

/// What a pipe holds.
const PIPE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Programs {
    running: Arc<AtomicUsize>,
    pub(crate) started: AtomicUsize,
    /// Bytes that programs got rid of.
    pub(crate) written: Arc<AtomicU64>,
    /// The output of the container that clients attach to.
    pub(crate) main: broadcast::Sender<&'static str>,
    /// The input of that container, in the order of its bytes.
    pub(crate) typed: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            running: Arc::default(),
            started: AtomicUsize::new(0),
            written: Arc::default(),
            main: broadcast::channel(16).0,
            typed: Arc::default(),
        }
    }
}

/// Counted while it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Programs {
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Alive {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(&self.running))
    }
}

/// A program's own ends.
struct Own {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<WindowSize>,
    written: Arc<AtomicU64>,
}

impl Own {
    async fn run(mut self, command: &[String]) -> i32 {
        let word = |at: usize| command.get(at).map(String::as_str).unwrap_or_default();
        match word(0) {
            "cat" => drop(tokio::io::copy(&mut self.stdin, &mut self.stdout).await),
            "exit" => return word(1).parse().unwrap(),
            "say" => {
                self.stdout.write_all(word(1).as_bytes()).await.unwrap();
                self.stderr.write_all(word(2).as_bytes()).await.unwrap();
            }
            "bytes" => {
                let all = vec![b'x'; word(1).parse().unwrap()];
                self.stdout.write_all(&all).await.unwrap();
            }
            "yes" => {
                while self.stdout.write_all(&[b'y'; 4_096]).await.is_ok() {
                    self.written.fetch_add(4_096, Ordering::SeqCst);
                }
                return 141;
            }
            "sizes" => {
                let mut left: u32 = word(1).parse().unwrap_or(u32::MAX);
                while left > 0
                    && let Some(size) = self.sizes.recv().await
                {
                    left -= 1;
                    let line = format!("{}x{}\n", size.columns, size.rows);
                    self.stdout.write_all(line.as_bytes()).await.unwrap();
                }
            }
            "sleep" => std::future::pending().await,
            // Ends at once; somebody else holds its output.
            "leave" => drop(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(999)).await;
                drop(self.stdout);
            })),
            // Closes everything and goes on for a while.
            "deaf" => {
                drop((self.stdin, self.stdout, self.stderr));
                tokio::time::sleep(Duration::from_secs(5)).await;
                return 7;
            }
            other => panic!("no program {other}"),
        }
        0
    }
}

impl Backend for Arc<Programs> {
    async fn exec(
        &self,
        container: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, DaemonError> {
        (**self).exec(container, command, streams).await
    }

    async fn attach(&self, container: &str, streams: Streams) -> Result<Session, DaemonError> {
        (**self).attach(container, streams).await
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, DaemonError> {
        (**self).dial(sandbox, port).await
    }
}

impl Backend for Programs {
    async fn exec(
        &self,
        container: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, DaemonError> {
        if container != "c" {
            return Err(DaemonError::NotBuilt("no such container"));
        }
        if command.first().is_some_and(|word| word == "sh") {
            return Ok(real(command, streams, self.alive()));
        }
        let (stdin, own_stdin) = duplex(PIPE);
        let (stdout, own_stdout) = duplex(PIPE);
        let (stderr, own_stderr) = duplex(PIPE);
        let (resize, sizes) = mpsc::channel(1);
        let written = Arc::clone(&self.written);
        let own = Own { stdin: own_stdin, stdout: own_stdout, stderr: own_stderr, sizes, written };
        let (alive, command) = (self.alive(), command.to_vec());
        let task = tokio::spawn(async move { own.run(&command).await });
        let killed = KillOnDrop(task.abort_handle());
        let ended = async move {
            let (_alive, _killed) = (alive, killed);
            Ok(Exit::Code(task.await.unwrap_or(137)))
        };
        Ok(Session {
            stdin: streams.stdin.then(|| Box::new(stdin) as _),
            stdout: streams.stdout.then(|| Box::new(stdout) as _),
            stderr: streams.stderr.then(|| Box::new(stderr) as _),
            resize: streams.tty.then_some(resize),
            ended: ended.boxed(),
        })
    }

    /// The container says what the test says; what is typed is kept in one order.
    async fn attach(&self, _: &str, streams: Streams) -> Result<Session, DaemonError> {
        let (stdin, mut own_stdin) = duplex(PIPE);
        let (stdout, mut own_stdout) = duplex(PIPE);
        let (alive, typed) = (self.alive(), Arc::clone(&self.typed));
        let mut said = self.main.subscribe();
        let typing = tokio::spawn(async move {
            let mut buffer = [0; 1_024];
            while let Ok(count @ 1..) = own_stdin.read(&mut buffer).await {
                typed.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let speaking = tokio::spawn(async move {
            while let Ok(text) = said.recv().await {
                if text == "end" || own_stdout.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let killed = (KillOnDrop(typing.abort_handle()), KillOnDrop(speaking.abort_handle()));
        let ended = async move {
            let (_alive, _killed) = (alive, killed);
            drop(speaking.await);
            Ok(Exit::Detached)
        };
        Ok(Session {
            stdin: streams.stdin.then(|| Box::new(stdin) as _),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: None,
            ended: ended.boxed(),
        })
    }

    /// Port 7 echoes, 9 takes nothing and gives a dot a second, 19 talks for ever, 80 answers after the client's end, 81 closes
    /// after a line, 443 is never reached; nobody listens on others.
    async fn dial(&self, _: &str, port: u16) -> Result<Box<dyn Duplex>, DaemonError> {
        if port == 443 {
            std::future::pending::<()>().await;
        }
        let (theirs, mut own) = duplex(PIPE);
        let alive = self.alive();
        let written = Arc::clone(&self.written);
        match port {
            7 => drop(tokio::spawn(async move {
                let _alive = alive;
                let (mut read, mut write) = tokio::io::split(own);
                drop(tokio::io::copy(&mut read, &mut write).await);
            })),
            9 => drop(tokio::spawn(async move {
                let _alive = alive;
                while own.write_all(b".").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })),
            19 => drop(tokio::spawn(async move {
                let _alive = alive;
                while own.write_all(&[b'c'; 4_096]).await.is_ok() {
                    written.fetch_add(4_096, Ordering::SeqCst);
                }
            })),
            80 => drop(tokio::spawn(async move {
                let _alive = alive;
                let mut asked = Vec::new();
                own.read_to_end(&mut asked).await.unwrap();
                tokio::time::sleep(Duration::from_secs(30)).await;
                asked.reverse();
                drop(own.write_all(&asked).await);
                // It keeps its end open, longer than anybody waits.
                tokio::time::sleep(Duration::from_secs(200)).await;
            })),
            81 => drop(tokio::spawn(async move {
                let _alive = alive;
                drop(own.write_all(b"hello\n").await);
            })),
            _ => {
                drop(alive);
                return Err(DaemonError::NotBuilt("connection refused"));
            }
        }
        Ok(Box::new(theirs))
    }
}

struct KillOnDrop(tokio::task::AbortHandle);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process of the machine, with pipes.
fn real(command: &[String], streams: Streams, alive: Alive) -> Session {
    let piped = |asked: bool| if asked { Stdio::piped() } else { Stdio::null() };
    let mut child = tokio::process::Command::new("sh")
        .args(&command[1..2])
        .arg(command[2..].join(" "))
        .stdin(piped(streams.stdin))
        .stdout(piped(streams.stdout))
        .stderr(piped(streams.stderr))
        .kill_on_drop(true)
        .spawn()
        .expect("sh");
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ended = async move {
        let _alive = alive;
        let status = child.wait().await.expect("wait");
        Ok(Exit::Code(status.code().unwrap_or(137)))
    };
    Session {
        stdin: stdin.map(|pipe| Box::new(pipe) as _),
        stdout: stdout.map(|pipe| Box::new(pipe) as _),
        stderr: stderr.map(|pipe| Box::new(pipe) as _),
        resize: None,
        ended: ended.boxed(),
    }
}
