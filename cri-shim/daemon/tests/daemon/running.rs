//! A real daemon under a scratch root, for the tests beside. Started on demand, ended with its value.

use hyper_util::rt::TokioIo;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A daemon of its own; ends with the test.
pub(crate) struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// `None`, said aloud, where the test cannot run.
    pub(crate) fn start() -> Option<Self> {
        let own = std::fs::metadata("/proc/self").expect("/proc");
        if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
            eprintln!("skipped: the daemon needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        // What it tells is kept beside its socket until the test ends.
        let log = std::fs::File::create(path("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_wherry"))
            .arg("serve")
            .arg("--socket")
            .arg(path("wherry.sock"))
            .arg("--root")
            .arg(path("root"))
            .arg("--state")
            .arg(path("state"))
            .arg("--cni-conf-dir")
            .arg(path("cni"))
            .stderr(log)
            .spawn()
            .expect("the daemon");
        let mut daemon = Self { child, folder };
        while UnixStream::connect(daemon.socket()).is_err() {
            let ended = daemon.child.try_wait().expect("wait");
            assert!(ended.is_none(), "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(daemon)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("wherry.sock")
    }

    /// What the daemon told so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.beside("log")).unwrap_or_default()
    }

    /// A path in the daemon's own folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let socket = self.socket();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(connect).await.expect("a connection")
    }

    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().expect("wait")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
