//! The daemon: zygote first, then threads, then the recovered runtime, last the socket, so that no
//! answer is given before the state is known.

use crate::args::fail;
use crate::config::keys::Config;
use crate::listen::{Connection, Listener};
use crate::{rpc, telemetry};
use anyhow::{Context, Result};
use shim_child::{ZygoteHandle, spawn_zygote};
use shim_image::config::ImageConfig;
use shim_image::images::Images;
use shim_image::pulls::Launch;
use shim_model::cgroup::driver::GroupPath;
use shim_model::limits;
use shim_proto::runtime_v1::image_service_server::ImageServiceServer;
use shim_proto::runtime_v1::runtime_service_server::RuntimeServiceServer;
use shim_runtime::cgroup::Cgroups;
use shim_runtime::config::RuntimeConfig;
use shim_runtime::monitors::Zygote;
use shim_runtime::network::NetworkConfig;
use shim_runtime::network::builtin::BuiltinConfig;
use shim_runtime::runtime::Runtime;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long calls under way may take after the order to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The daemon's whole life.
pub(crate) fn main(config: Config) -> ExitCode {
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(config: Config) -> Result<()> {
    telemetry::logs::start(&config.log)?;
    // Before any thread: the zygote must be single-threaded and hold nothing of ours.
    let zygote = spawn_zygote().context("start the zygote")?;
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.limits.worker_threads.0)
        .max_blocking_threads(config.limits.blocking_threads.0)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let served = tokio.block_on(serve(config, zygote));
    tokio.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config, zygote: ZygoteHandle) -> Result<()> {
    let runtime = start_runtime(&config, zygote).await?;
    let listener = Listener::bind(&config.socket).await?;
    let stop = CancellationToken::new();
    let incoming = incoming(listener, stop.clone());
    let service = rpc::service::Service::new(runtime);
    let limit = limits::GRPC_REQUEST_BYTES;
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(1_024)
        .add_service(
            RuntimeServiceServer::new(service.clone())
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            ImageServiceServer::new(service)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX),
        );
    tracing::info!(socket = %config.socket.path.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let _no_systemd = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ending = CancellationToken::new();
    let ordered = ending.clone();
    let serving = tokio::spawn(async move {
        server.serve_with_incoming_shutdown(incoming, ordered.cancelled_owned()).await
    });
    wait_for_order().await?;
    tracing::info!("stopping; pods run on");
    let _no_systemd = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    ending.cancel();
    let finished = async {
        tokio::time::sleep(GRACE).await;
        stop.cancel();
    };
    tokio::select! {
        served = serving => served.context("the server ended")?.context("serve")?,
        () = finished => {}
    }
    Ok(())
}

/// Connections until the order to stop.
fn incoming(
    listener: Listener,
    cut: CancellationToken,
) -> impl futures_util::Stream<Item = std::io::Result<Connection>> {
    futures_util::stream::unfold((listener, cut), |(listener, cut)| async move {
        let connection = tokio::select! {
            connection = listener.accept(&cut) => connection,
            () = cut.cancelled() => return None,
        };
        Some((Ok(connection), (listener, cut)))
    })
}

async fn start_runtime(config: &Config, zygote: ZygoteHandle) -> Result<Runtime> {
    let cgroups = Cgroups::detect().context("look at the cgroups")?;
    let own = GroupPath::own();
    cgroups.adopt(&own, zygote.process.pid);
    let placing = cgroups.clone();
    let launch = Launch {
        program: "/proc/self/exe".into(),
        args: vec!["pull-worker".to_owned()],
        place: Arc::new(move |pid| {
            if let Ok(pid) = i32::try_from(pid) {
                placing.adopt(&GroupPath::own(), pid);
            }
        }),
    };
    let mut images = ImageConfig::below(&config.root);
    config.registry.config_dir.clone_into(&mut images.registry_config);
    config.registry.auth_file.clone_into(&mut images.auth_file);
    images.layers_at_once = config.images.layers_at_once.0;
    let images = Images::open(images, launch).context("open the images")?;
    let again = cgroups.clone();
    let relaunch = Box::new(move || {
        let zygote = spawn_zygote().map_err(|error| std::io::Error::other(error.to_string()))?;
        again.adopt(&GroupPath::own(), zygote.process.pid);
        Ok((zygote.socket, zygote.pidfd))
    });
    let zygote = Zygote::new(zygote.socket, relaunch)?;
    Runtime::start(runtime_config(config), images, cgroups, zygote)
        .await
        .context("start the runtime")
}

fn runtime_config(config: &Config) -> RuntimeConfig {
    RuntimeConfig {
        root: config.root.clone(),
        state: config.state.clone(),
        network: NetworkConfig {
            conf_dir: config.cni.conf_dir.clone(),
            bin_dirs: config.cni.bin_dirs.clone(),
            cache_dir: config.cni.cache_dir.clone(),
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
    }
}

/// SIGTERM or SIGINT.
async fn wait_for_order() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
