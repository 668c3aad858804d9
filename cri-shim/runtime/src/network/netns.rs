//! Network namespaces: made on a thread of their own, loopback up, pinned by a bind mount, so that CNI
//! plugins and a later daemon find them by path. A few are made ahead: a pod that starts takes one. A used
//! one never comes back; it goes with its pin and its last process.

use super::native::veth::set_up;
use super::routes::Routes;
use crate::error::{RuntimeError, chain};
use parking_lot::Mutex;
use shim_model::limits;
use shim_sys::mount;
use shim_sys::namespace::{self, Namespace};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// Number of the loopback in every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Settings that a link made in process is born with: no router of the pod's network changes its routes,
/// and no address waits for duplicates. Links that plugins make later keep the kernel's defaults.
const BORN_WITH: [&str; 2] =
    ["/proc/sys/net/ipv6/conf/default/accept_ra", "/proc/sys/net/ipv6/conf/default/accept_dad"];

/// A namespace that nobody has used.
#[derive(Debug)]
struct Fresh {
    /// Its file as a detached mount, to be attached at the pin.
    tree: OwnedFd,
    inside: Inside,
}

/// Hands within a namespace, opened there: they work from any thread and keep it alive.
#[derive(Debug)]
pub struct Inside {
    /// Links, addresses and routes.
    pub routes: Routes,
    namespace: OwnedFd,
    born_with: Vec<File>,
}

impl Inside {
    /// The namespace itself.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Makes the next link quiet: see `BORN_WITH`.
    pub fn quiet(&mut self) {
        for file in &mut self.born_with {
            // A kernel without IPv6 has none; one that refuses only keeps its default.
            let _default = file.write_all(b"0");
        }
    }

    /// Opens them in the namespace that is pinned at a path.
    pub fn enter(pin: &Path) -> Result<Self, RuntimeError> {
        join(pin, |target| Self::here(target.into()))
    }

    fn here(namespace: OwnedFd) -> Result<Self, RuntimeError> {
        let born_with =
            BORN_WITH.iter().filter_map(|path| File::options().write(true).open(path).ok());
        Ok(Self { routes: Routes::open()?, namespace, born_with: born_with.collect() })
    }
}

impl Fresh {
    fn make() -> Result<Self, RuntimeError> {
        let doing = "make a network namespace";
        on_thread(|| {
            namespace::unshare(&[Namespace::Network]).map_err(RuntimeError::system(doing))?;
            // This thread's, not the process's: /proc/self is the first thread.
            let path = "/proc/thread-self/ns/net";
            let namespace = File::open(path).map_err(RuntimeError::file("open", path))?;
            let mut inside = Inside::here(namespace.into())?;
            inside.routes.change(vec![set_up(LOOPBACK)])?;
            // The file of this very thread: it is gone with the thread, the bind mount stays.
            let tree = mount::clone_path(c"/proc/thread-self/ns/net", false)
                .map_err(RuntimeError::system(doing))?;
            Ok(Self { tree, inside })
        })
    }

    /// One that a pod's monitor made, because it belongs to the pod's user namespace.
    fn of(namespace: OwnedFd) -> Result<Self, RuntimeError> {
        let doing = "take a pod's network namespace over";
        on_thread(move || {
            namespace::join(&namespace, &[Namespace::Network])
                .map_err(RuntimeError::system(doing))?;
            let tree = mount::clone_path(c"/proc/thread-self/ns/net", false)
                .map_err(RuntimeError::system(doing))?;
            let mut inside = Inside::here(namespace)?;
            inside.routes.change(vec![set_up(LOOPBACK)])?;
            Ok(Self { tree, inside })
        })
    }

    fn pin(self, pin: &Path) -> Result<(OwnedFd, Inside), RuntimeError> {
        let namespace =
            self.inside.namespace.try_clone().map_err(RuntimeError::file("keep open", pin))?;
        File::create(pin).map_err(RuntimeError::file("make the pin", pin))?;
        let pinned = mount::attach_path(&self.tree, &c_path(pin))
            .map_err(RuntimeError::system("pin a network namespace"));
        if let Err(error) = pinned {
            let _the_first_error_counts = fs::remove_file(pin);
            return Err(error);
        }
        Ok((namespace, self.inside))
    }
}

/// Namespaces made ahead.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Ready>);

#[derive(Debug)]
struct Ready {
    fresh: Mutex<Vec<Fresh>>,
    taken: Arc<Notify>,
}

impl Pool {
    /// Fills it beside the daemon's start, which waits for none of it, and again after each pod that took
    /// one.
    pub fn start() -> Self {
        let taken = Arc::new(Notify::new());
        let ready = Arc::new(Ready { fresh: Mutex::default(), taken: Arc::clone(&taken) });
        taken.notify_one();
        let weak = Arc::downgrade(&ready);
        tokio::spawn(async move {
            loop {
                taken.notified().await;
                // The pod that took one needs the processors more.
                tokio::time::sleep(limits::NETNS_REFILL).await;
                let Some(ready) = weak.upgrade() else { break };
                drop(tokio::task::spawn_blocking(move || ready.fill()).await);
            }
        });
        Self(ready)
    }

    /// Takes one, or makes one, and pins it. Blocking.
    pub fn pinned(&self, pin: &Path) -> Result<(OwnedFd, Inside), RuntimeError> {
        let ready = self.0.fresh.lock().pop();
        self.0.taken.notify_one();
        ready.map_or_else(Fresh::make, Ok)?.pin(pin)
    }
}

impl Ready {
    fn fill(&self) {
        while self.fresh.lock().len() < limits::NETNS_READY {
            match Fresh::make() {
                Ok(fresh) => self.fresh.lock().push(fresh),
                Err(error) => {
                    let error = chain(&error);
                    tracing::debug!(error, "no network namespace could be made ahead");
                    break;
                }
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // The task sees that nobody holds it any more.
        self.taken.notify_one();
    }
}

/// Pins a namespace that was made elsewhere, loopback up. Blocking.
pub fn adopt(namespace: OwnedFd, pin: &Path) -> Result<Inside, RuntimeError> {
    Fresh::of(namespace)?.pin(pin).map(|(_same, inside)| inside)
}

/// Unpins a namespace; a missing one is done.
pub fn remove(pin: &Path) -> Result<(), RuntimeError> {
    if !pin.exists() {
        return Ok(());
    }
    // Not mounted is fine: a crash between the file and the mount.
    let _not_mounted = mount::unmount(&c_path(pin));
    match fs::remove_file(pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file("remove the pin", pin)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What `make` makes in the namespace that is pinned at a path. Blocking.
pub fn inside<T: Send>(pin: &Path, make: impl FnOnce() -> T + Send) -> Result<T, RuntimeError> {
    join(pin, |_target| Ok(make()))
}

fn join<T: Send>(
    pin: &Path,
    work: impl FnOnce(File) -> Result<T, RuntimeError> + Send,
) -> Result<T, RuntimeError> {
    let target = File::open(pin).map_err(RuntimeError::file("open the namespace", pin))?;
    on_thread(move || {
        namespace::join(&target, &[Namespace::Network])
            .map_err(RuntimeError::system("join a network namespace"))?;
        work(target)
    })
}

/// A thread of its own: changing its namespace changes nobody else's.
fn on_thread<T: Send>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send,
) -> Result<T, RuntimeError> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or(Err(RuntimeError::Lost("a thread of the network")))
    })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
