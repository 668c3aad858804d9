//! The socket of NRI. Lets plugins in, one after the other: register, configure, begin an era in which the new
//! one is among them, wait until the era before is over, tell it what there is, let it go on. So nothing that
//! happens meanwhile is lost: it is either in what it is told first, or waits for it. A socket that cannot be
//! had is told in the log and in `Status`; pods run without plugins.

use super::chain::Chain;
use super::connection::Asked;
use super::merge::{asked, bounded};
use super::plugin::{NotLetIn, Patience, Plugin};
use super::{ttrpc, view};
use prost::Message;
use shim_model::limits;
use shim_proto::nri_v1alpha1 as nri;
use shim_runtime::error::chain;
use shim_runtime::nri::{Change, Plugins};
use shim_runtime::runtime::Runtime;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is configured.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where plugins connect.
    pub(crate) socket: PathBuf,
    /// How long they may take.
    pub(crate) patience: Patience,
}

#[derive(Debug)]
struct Server {
    runtime: Runtime,
    patience: Patience,
    /// One comes or goes at a time.
    chain: Mutex<Chain>,
    places: Arc<Semaphore>,
}

/// Serves NRI until `ending`, beside the caller; then lets plugins take part in what is under way, and tells
/// them that we leave.
pub(crate) async fn start(
    settings: Settings,
    runtime: Runtime,
    ending: CancellationToken,
) -> Option<JoinHandle<()>> {
    let path = settings.socket.clone();
    let socket = match bind(&path).await {
        Ok(socket) => socket,
        Err(error) => {
            let (path, why_not) = (path.display(), error.to_string());
            tracing::warn!(%path, why_not, "NRI is not served: its socket cannot be had");
            runtime.nri().tell_condition(|now| now.why_not = why_not);
            return None;
        }
    };
    tracing::info!(socket = %path.display(), "NRI is served");
    runtime.nri().tell_condition(|now| now.socket = path.display().to_string());
    let server = Arc::new(Server {
        runtime,
        patience: settings.patience,
        chain: Mutex::default(),
        places: Arc::new(Semaphore::new(limits::NRI_PLUGINS)),
    });
    Some(tokio::spawn(async move {
        tokio::select! {
            () = server.accept(&socket) => {}
            () = ending.cancelled() => {}
        }
        // A socket file that stays is replaced by the next start.
        drop(fs::remove_file(&path));
        let all = server.chain.lock().await.clone();
        server.publish(&all).wait().await;
        all.shut_down().await;
    }))
}

/// Root's alone. A socket that somebody serves is not taken over: plugins would be split between two daemons.
async fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another runtime serves it"));
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(socket)
}

impl Server {
    async fn accept(self: &Arc<Self>, socket: &UnixListener) {
        loop {
            match socket.accept().await {
                Ok((stream, _)) if is_root(&stream) => {
                    let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                        let most = limits::NRI_PLUGINS;
                        tracing::warn!(most, "a plugin is not let in: so many are there already");
                        continue;
                    };
                    let server = Arc::clone(self);
                    tokio::spawn(async move {
                        server.attend(stream).await;
                        drop(place);
                    });
                }
                Ok(_) => tracing::warn!("a plugin is not let in: it is not root's"),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The whole stay of a plugin.
    async fn attend(self: Arc<Self>, stream: UnixStream) {
        let (plugin, asks) = match Plugin::register(stream, self.patience).await {
            Ok((plugin, asks)) => (Arc::new(plugin), asks),
            Err(why) => {
                tracing::warn!(why = chain(&why), "a plugin is not let in");
                return;
            }
        };
        let requests = tokio::spawn(requests(self.runtime.clone(), Arc::clone(&plugin), asks));
        match self.join(&plugin).await {
            Ok(()) => {
                tracing::info!(plugin = plugin.name, "a plugin is connected");
                plugin.connection.closed().await;
                tracing::info!(plugin = plugin.name, "a plugin is gone");
            }
            Err(why) => {
                plugin.connection.close();
                let (plugin, why) = (&plugin.name, chain(&why));
                tracing::warn!(plugin, why, "a plugin is sent away");
            }
        }
        requests.abort();
        let mut chain = self.chain.lock().await;
        *chain = chain.without_gone();
        drop(self.publish(&chain));
    }

    /// Makes it one of those who are told.
    async fn join(&self, plugin: &Arc<Plugin>) -> Result<(), NotLetIn> {
        let mut chain = self.chain.lock().await;
        *chain = chain.with(Arc::clone(plugin));
        let over = self.publish(&chain);
        let settled = tokio::time::timeout(limits::NRI_SETTLE, over.wait()).await;
        let busy = |_| {
            let why = "what began before it came is not over; it may come again";
            NotLetIn::Synchronization(why.to_owned())
        };
        settled.map_err(busy)?;
        let failed = |error| NotLetIn::Synchronization(shim_runtime::error::chain(&error));
        let all = self.runtime.everything().await.map_err(failed)?;
        let pods = all.pods.iter().map(view::pod).collect();
        let containers = all.containers.iter().map(|one| view::container(one)).collect();
        let updates = plugin.synchronize(pods, containers).await?;
        plugin.goes_on();
        // The next one may come.
        drop(chain);
        drop(update(&self.runtime, &plugin.name, updates, Vec::new()).await);
        Ok(())
    }

    fn publish(&self, chain: &Chain) -> shim_runtime::nri::Over {
        let plugins = (!chain.is_empty()).then(|| Arc::new(chain.clone()) as Arc<dyn Plugins>);
        self.runtime.nri().tell_condition(|now| now.plugins = chain.names());
        self.runtime.nri().change(plugins)
    }
}

fn is_root(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0)
}

/// Answers what a plugin asks unasked, one after the other.
async fn requests(runtime: Runtime, plugin: Arc<Plugin>, mut asks: mpsc::Receiver<Asked>) {
    while let Some(Asked { stream, method, payload }) = asks.recv().await {
        let answer = match method.as_str() {
            "UpdateContainers" => update_containers(&runtime, &plugin.name, &payload).await,
            other => {
                let other = other.escape_default();
                Err((ttrpc::UNIMPLEMENTED, format!("there is no method {other}")))
            }
        };
        plugin.connection.answer(stream, answer).await;
    }
}

async fn update_containers(
    runtime: &Runtime,
    plugin: &str,
    payload: &[u8],
) -> Result<Vec<u8>, (i32, String)> {
    let wrong = |why: String| (ttrpc::INVALID_ARGUMENT, why);
    let request =
        nri::UpdateContainersRequest::decode(payload).map_err(|error| wrong(error.to_string()))?;
    bounded(request.update.len().saturating_add(request.evict.len())).map_err(wrong)?;
    let evict = request.evict.into_iter().map(|one| (one.container_id, one.reason)).collect();
    let failed = update(runtime, plugin, request.update, evict).await;
    if failed.is_empty() {
        return Ok(nri::UpdateContainersResponse { failed }.encode_to_vec());
    }
    let count = failed.len();
    tracing::warn!(plugin, count, "updates that a plugin asked for failed");
    Ok(nri::UpdateContainersResponse { failed }.encode_to_vec())
}

/// Changes limits; those that failed and were not to.
async fn update(
    runtime: &Runtime,
    plugin: &str,
    updates: Vec<nri::ContainerUpdate>,
    evict: Vec<(String, String)>,
) -> Vec<nri::ContainerUpdate> {
    let (mut failed, mut changes) = (Vec::new(), Vec::new());
    for update in &updates {
        match asked(update) {
            Ok((resources, _)) => changes.push(Change {
                container: update.container_id.clone(),
                resources,
                may_fail: update.ignore_failure,
            }),
            Err(why) => {
                let id = &update.container_id;
                tracing::warn!(plugin, id, why, "limits that a plugin asks for are not set");
                failed.extend((!update.ignore_failure).then(|| update.clone()));
            }
        }
    }
    let undone = runtime.nri_changes(changes, evict).await;
    let undone: Vec<&String> = undone.iter().map(|change| &change.container).collect();
    failed.extend(updates.iter().filter(|one| undone.contains(&&one.container_id)).cloned());
    failed
}
