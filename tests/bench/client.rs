//! One CRI client for every runtime: the same requests in the same order, timed from outside. Prints a
//! line per subject: median, 90th and 99th percentile, least. Starts no runtime; `hack/bench` does.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_client::ImageServiceClient;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// What is measured, and where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Socket of the runtime.
    pub(crate) socket: PathBuf,
    /// Image of every container.
    pub(crate) image: String,
    /// Pods one after the other.
    pub(crate) pods: usize,
    /// Clients at once, and pods of each.
    pub(crate) clients: (usize, usize),
    /// Share the node's network instead of using the CNI configuration.
    pub(crate) host_network: bool,
}

#[derive(Clone, Debug)]
struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    plan: Plan,
    run: u64,
}

async fn connect(plan: &Plan) -> Result<Client> {
    let path = plan.socket.clone();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel =
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    let run = u64::from(std::process::id());
    let (runtime, images) =
        (RuntimeServiceClient::new(channel.clone()), ImageServiceClient::new(channel));
    Ok(Client { runtime, images, plan: plan.clone(), run })
}

/// Runs every subject and prints it.
pub(crate) async fn run(plan: Plan) -> Result<()> {
    let client = connect(&plan).await.context("connect")?;
    let spec = cri::ImageSpec { image: plan.image.clone(), ..cri::ImageSpec::default() };
    let begun = Instant::now();
    let request = cri::PullImageRequest { image: Some(spec), ..cri::PullImageRequest::default() };
    client.images.clone().pull_image(request).await?;
    println!("pull {:?}", begun.elapsed());
    serial(&client, plan.pods).await?;
    parallel(&client, plan.clients).await
}

async fn serial(client: &Client, pods: usize) -> Result<()> {
    let (mut start, mut exec, mut end) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..pods {
        let begun = Instant::now();
        let (pod, container) = client.start(&format!("s{number}")).await?;
        start.push(begun.elapsed());
        for _ in 0..3 {
            let begun = Instant::now();
            client.exec(&container).await?;
            exec.push(begun.elapsed());
        }
        let begun = Instant::now();
        client.end(&pod).await?;
        end.push(begun.elapsed());
    }
    print("pod start (run, create, start)", start);
    print("exec sync of true", exec);
    print("stop and remove", end);
    Ok(())
}

async fn parallel(client: &Client, (clients, each): (usize, usize)) -> Result<()> {
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for worker in 0..clients {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let mut starts = Vec::new();
            for number in 0..each {
                let begun = Instant::now();
                let (pod, _) = client.start(&format!("p{worker}-{number}")).await?;
                starts.push(begun.elapsed());
                client.end(&pod).await?;
            }
            anyhow::Ok(starts)
        }));
    }
    let mut starts = Vec::new();
    for task in tasks {
        starts.extend(task.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    print(&format!("pod start, {clients} clients"), starts);
    let count = f64::from(u32::try_from(clients * each).unwrap_or(u32::MAX));
    println!("lifecycles per second, {clients} clients: {:.1}", count / seconds);
    Ok(())
}

impl Client {
    async fn start(&self, name: &str) -> Result<(String, String)> {
        let network =
            if self.plan.host_network { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
        let options = cri::NamespaceOption {
            network: network.into(),
            pid: cri::NamespaceMode::Container.into(),
            ..cri::NamespaceOption::default()
        };
        let name = format!("bench-{}-{name}", self.run);
        let sandbox = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "bench".into(),
                attempt: 0,
            }),
            log_directory: format!("/tmp/wherry-bench/{name}"),
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(options.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let container = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: self.plan.image.clone(), ..Default::default() }),
            command: vec!["sleep".into(), "1000".into()],
            log_path: "c.log".into(),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(options),
                    seccomp: Some(cri::SecurityProfile::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut runtime = self.runtime.clone();
        let request = cri::RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            runtime_handler: String::new(),
        };
        let pod = runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(container),
            sandbox_config: Some(sandbox),
        };
        let id = runtime.create_container(request).await?.into_inner().container_id;
        runtime.start_container(cri::StartContainerRequest { container_id: id.clone() }).await?;
        Ok((pod, id))
    }

    async fn exec(&self, id: &str) -> Result<()> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: vec!["true".into()],
            timeout: 10,
        };
        let answer = self.runtime.clone().exec_sync(request).await?.into_inner();
        anyhow::ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
        Ok(())
    }

    async fn end(&self, pod: &str) -> Result<()> {
        let mut runtime = self.runtime.clone();
        runtime
            .stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() })
            .await?;
        runtime
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() })
            .await?;
        Ok(())
    }
}

fn print(subject: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| {
        times.get(times.len().saturating_sub(1) * share / 100).copied().unwrap_or_default()
    };
    println!(
        "{subject}: n={} p50 {:.2?} p90 {:.2?} p99 {:.2?} min {:.2?}",
        times.len(),
        at(50),
        at(90),
        at(99),
        at(0)
    );
}
