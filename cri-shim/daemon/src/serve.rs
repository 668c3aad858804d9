//! The daemon's life: configuration, zygote, threads, the recovered runtime, last the socket, so that no
//! answer is given before the state is known. Owns the order of these and the shutdown. What an RPC does
//! is `rpc/`; pods run on whatever happens here.

use crate::args::{ServeArgs, fail};
use crate::config::keys::{self, Config};
use crate::config::{flags, live};
use crate::error::DaemonError;
use crate::folders;
use crate::listen::Listener;
use crate::nri::server;
use crate::rpc::own::service::OwnService;
use crate::rpc::service::Service;
use crate::streaming::server::Server;
use crate::telemetry::logs::{self, Volume};
use crate::telemetry::{http, traces};
use shim_child::{ZygoteHandle, spawn_zygote};
use shim_image::config::ImageConfig;
use shim_image::images::Images;
use shim_image::pulls::Launch;
use shim_model::cgroup::driver::Driver;
use shim_model::limits;
use shim_proto::runtime_v1::image_service_server::ImageServiceServer;
use shim_proto::runtime_v1::runtime_service_server::RuntimeServiceServer;
use shim_proto::wherry_v1::wherry_server::WherryServer;
use shim_runtime::cgroup::Cgroups;
use shim_runtime::config::RuntimeConfig;
use shim_runtime::monitors::Zygote;
use shim_runtime::network::NetworkConfig;
use shim_runtime::network::builtin::BuiltinConfig;
use shim_runtime::runtime::Runtime;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The daemon's whole life.
pub(crate) fn main(flags: &ServeArgs) -> ExitCode {
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.into()),
    }
}

fn run(flags: &ServeArgs) -> Result<(), DaemonError> {
    let config = flags::configuration(flags)?;
    // Before any thread: the zygote has a single one, and holds nothing of ours.
    let zygote = spawn_zygote().map_err(DaemonError::Zygote)?;
    shim_runtime::host::share_heaps();
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.limits.worker_threads.0)
        .max_blocking_threads(config.limits.blocking_threads.0)
        .thread_keep_alive(limits::THREAD_IDLE)
        .thread_stack_size(limits::THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Prepare("the async runtime", source))?;
    let inside = threads.enter();
    let pipe = traces::open(&config.traces)?;
    drop(inside);
    let volume = logs::start(&config.log, &pipe)?;
    let served = threads.block_on(serve(flags, config, volume, zygote));
    pipe.end();
    threads.shutdown_timeout(limits::SHUTDOWN_END);
    served
}

async fn serve(
    flags: &ServeArgs,
    config: Config,
    volume: Volume,
    zygote: ZygoteHandle,
) -> Result<(), DaemonError> {
    let runtime = start_runtime(&config, zygote).await?;
    let ending = CancellationToken::new();
    http::serve(&config.metrics.listen, &runtime, ending.clone()).await?;
    let streams = Server::start(config.streaming.settings()?, runtime.clone()).await?;
    let listener = Listener::bind(&config.socket).await?;
    let ending = CancellationToken::new();
    let plugins = plugins(&config, &runtime, &ending).await;
    tracing::info!(socket = %config.socket.path.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    notify(sd_notify::NotifyState::Ready);
    let cut = CancellationToken::new();
    let service = Service::new(runtime, streams, ending.clone());
    let answering = answer(listener, service, ending.clone(), cut.clone());
    let path = config.socket.path.clone();
    let mut answering = tokio::spawn(answering);
    tokio::select! {
        ordered = orders(flags, config, &volume) => ordered?,
        ended = &mut answering => return finished(path, ended),
    }
    tracing::info!("stopping; pods run on");
    notify(sd_notify::NotifyState::Stopping);
    ending.cancel();
    let ended = tokio::time::timeout(limits::SHUTDOWN_GRACE, &mut answering).await;
    if let Some(plugins) = plugins {
        drop(tokio::time::timeout(limits::SHUTDOWN_END, plugins).await);
    }
    if let Ok(ended) = ended {
        return finished(path, ended);
    }
    tracing::warn!("requests under way did not end, and are cut off");
    cut.cancel();
    // What does not even end now is left behind: the process leaves.
    let last = tokio::time::timeout(limits::SHUTDOWN_END, answering).await;
    last.map_or(Ok(()), |ended| finished(path, ended))
}

/// Lets plugins come, where that is configured.
async fn plugins(
    config: &Config,
    runtime: &Runtime,
    ending: &CancellationToken,
) -> Option<JoinHandle<()>> {
    let Some(settings) = config.nri.settings() else {
        runtime.nri().tell_condition(|now| "it is not configured".clone_into(&mut now.why_not));
        return None;
    };
    server::start(settings, runtime.clone(), ending.clone()).await
}

type Ended = Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>;

fn finished(path: std::path::PathBuf, ended: Ended) -> Result<(), DaemonError> {
    match ended {
        Ok(served) => served.map_err(|source| DaemonError::Serve { path, source }),
        Err(panic) => Err(DaemonError::Prepare("the server", panic.into())),
    }
}

/// Answers until `ending`, then finishes what is under way; `cut` ends what does not finish.
async fn answer(
    listener: Listener,
    service: Service,
    ending: CancellationToken,
    cut: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let limit = limits::GRPC_REQUEST_BYTES;
    let runtime = RuntimeServiceServer::new(service.clone()).max_decoding_message_size(limit);
    let own = WherryServer::new(OwnService::new(service.runtime(), ending.clone()));
    let images = ImageServiceServer::new(service).max_decoding_message_size(limit);
    let incoming = futures_util::stream::unfold(listener, move |listener| {
        let cut = cut.clone();
        async move {
            let connection = listener.accept(&cut).await;
            Some((Ok::<_, std::io::Error>(connection), listener))
        }
    });
    tonic::transport::Server::builder()
        .trace_fn(traces::request)
        .max_concurrent_streams(limits::GRPC_CONCURRENT_REQUESTS)
        .add_service(runtime.max_encoding_message_size(usize::MAX))
        .add_service(images.max_encoding_message_size(usize::MAX))
        .add_service(own)
        .serve_with_incoming_shutdown(incoming, ending.cancelled_owned())
        .await
}

/// Waits for the order to stop; on SIGHUP reads the configuration again.
async fn orders(flags: &ServeArgs, mut config: Config, volume: &Volume) -> Result<(), DaemonError> {
    let watch = |kind| signal(kind).map_err(|source| DaemonError::Prepare("signals", source));
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut again = watch(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = again.recv() => config = reread(flags, config, volume),
        }
    }
}

/// Takes over what may change in a running daemon, and says what waits for a restart.
fn reread(flags: &ServeArgs, old: Config, volume: &Volume) -> Config {
    let new = match flags::configuration(flags) {
        Ok(new) => new,
        Err(error) => {
            let error = shim_runtime::error::chain(&error);
            tracing::warn!(error, "the configuration stays as it was");
            return old;
        }
    };
    let changes = live::compare(&old, &new);
    if let Some(level) = &changes.level {
        volume.set(level);
    }
    tracing::info!(level = new.log.level.0, later = ?changes.later, "the configuration was read again; what is later waits for a restart");
    let mut now = old;
    now.log.level = new.log.level;
    now
}

/// Tells systemd, where it is the one that started us.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

async fn start_runtime(config: &Config, zygote: ZygoteHandle) -> Result<Runtime, DaemonError> {
    folders::prepare(config)?;
    let driver = match config.cgroup.driver {
        keys::Driver::Auto => None,
        keys::Driver::Cgroupfs => Some(Driver::Cgroupfs),
        keys::Driver::Systemd => Some(Driver::Systemd),
    };
    let cgroups = Cgroups::detect()?.drive(driver, zygote.process.pid).await?;
    let mut images = ImageConfig::below(&config.root);
    config.registry.config_dir.clone_into(&mut images.registry_config);
    config.registry.auth_file.clone_into(&mut images.auth_file);
    images.layers_at_once = config.images.layers_at_once.0;
    let images = Images::open(images, pull_worker(cgroups.clone()))?;
    let placing = cgroups.clone();
    let relaunch = Box::new(move || {
        let zygote = spawn_zygote().map_err(std::io::Error::other)?;
        placing.adopt(&placing.driver().own(), zygote.process.pid);
        Ok((zygote.socket, zygote.pidfd))
    });
    let zygote = Zygote::new((zygote.socket, zygote.pidfd), relaunch)?;
    Ok(Runtime::start(runtime_config(config), images, cgroups, zygote).await?)
}

/// How this program becomes a pull worker, and in which group it works.
fn pull_worker(cgroups: Cgroups) -> Launch {
    Launch {
        program: "/proc/self/exe".into(),
        args: vec!["pull-worker".to_owned()],
        place: Arc::new(move |pid| {
            if let Ok(pid) = i32::try_from(pid) {
                cgroups.adopt(&cgroups.driver().own(), pid);
            }
        }),
    }
}

fn runtime_config(config: &Config) -> RuntimeConfig {
    RuntimeConfig {
        root: config.root.clone(),
        state: config.state.clone(),
        network: NetworkConfig {
            conf_dir: config.cni.conf_dir.clone(),
            bin_dirs: config.cni.bin_dirs.clone(),
            cache_dir: config.cni.cache_dir.clone(),
            native: config.cni.native,
            netns_dir: config.state.join("netns"),
            builtin: BuiltinConfig {
                bridge: config.network.bridge.0.clone(),
                subnet: config.network.subnet.text(),
                data_dir: config.cni.cache_dir.join("networks/wherry"),
            },
        },
        unprivileged_ports: config.enable_unprivileged_ports,
        unprivileged_icmp: config.enable_unprivileged_icmp,
        create_missing_host_paths: config.create_missing_host_paths,
        rlimits: config.containers.default_ulimits.iter().map(|limit| limit.0).collect(),
        cdi_folders: config.cdi.spec_dirs.clone(),
        handlers: config.handlers.clone(),
    }
}
