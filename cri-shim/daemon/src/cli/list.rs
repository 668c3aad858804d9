//! `wherry ps`, `pods`, `info`, `version`: what the daemon answers, as tables or JSON. Only columns, filters
//! and order are made here.

use super::client::{Client, is_kubelets, is_own, short};
use super::{CliError, Format, print, table};
use clap::Args;
use serde_json::{Value, json};
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;

/// Arguments of `wherry ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
}

/// Lists containers.
pub(crate) async fn ps(args: &Ps, client: &mut Client, format: Format) -> Result<u8, CliError> {
    let (mut containers, pods) = (client.containers().await?, client.pods().await?);
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let now = shim_runtime::host::now();
    for container in &containers {
        if !args.all && container.state() != cri::ContainerState::ContainerRunning {
            continue;
        }
        // It may have been removed since it was listed.
        let Ok(status) = client.status(&container.id).await else { continue };
        let pod = pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        let name = container.metadata.as_ref().map_or("", |known| known.name.as_str());
        let image = status.image.as_ref().map_or("", |image| image.image.as_str());
        let ports = pod
            .and_then(|pod| pod.annotations.get("wherry.dev/ports"))
            .cloned()
            .unwrap_or_default();
        let state = state(&status, now);
        list.push(json!({"id": container.id, "name": name, "image": image, "state": status.state().as_str_name(), "status": state, "exit_code": status.exit_code, "ports": ports, "created_at": container.created_at, "pod": container.pod_sandbox_id, "owner": owner(pod)}));
        rows.push(vec![
            short(&container.id).to_owned(),
            image.to_owned(),
            format!("{} ago", table::ago(container.created_at, now)),
            state,
            ports,
            name.to_owned(),
            owner(pod).to_owned(),
        ]);
    }
    show(
        format,
        &["CONTAINER ID", "IMAGE", "CREATED", "STATUS", "PORTS", "NAMES", "OWNER"],
        &rows,
        list,
    );
    Ok(0)
}

fn state(status: &cri::ContainerStatus, now: i64) -> String {
    match status.state() {
        cri::ContainerState::ContainerCreated => "Created".to_owned(),
        cri::ContainerState::ContainerRunning => {
            format!("Up {}", table::ago(status.started_at, now))
        }
        cri::ContainerState::ContainerExited => {
            let reason = if matches!(status.reason.as_str(), "Completed" | "Error") {
                String::new()
            } else {
                format!(" {}", status.reason)
            };
            format!(
                "Exited ({}){reason} {} ago",
                status.exit_code,
                table::ago(status.finished_at, now)
            )
        }
        cri::ContainerState::ContainerUnknown => "Unknown".to_owned(),
    }
}

fn owner(pod: Option<&cri::PodSandbox>) -> &'static str {
    match pod {
        Some(pod) if is_kubelets(pod) => "kubelet",
        Some(pod) if is_own(pod) => "wherry",
        Some(_) => "cri",
        None => "",
    }
}

fn show(format: Format, head: &[&str], rows: &[Vec<String>], list: Vec<Value>) {
    match format {
        Format::Json => print(&Value::Array(list).to_string()),
        Format::Table => table::show(head, rows),
    }
}

/// Lists pods.
pub(crate) async fn pods(client: &mut Client, format: Format) -> Result<u8, CliError> {
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let now = shim_runtime::host::now();
    for pod in client.pods().await? {
        let request =
            cri::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let status = client
            .runtime
            .pod_sandbox_status(request)
            .await?
            .into_inner()
            .status
            .unwrap_or_default();
        let ip = status.network.map(|network| network.ip).unwrap_or_default();
        let meta = pod.metadata.clone().unwrap_or_default();
        let ready =
            if pod.state() == cri::PodSandboxState::SandboxReady { "Ready" } else { "NotReady" };
        list.push(json!({"id": pod.id, "name": meta.name, "namespace": meta.namespace, "attempt": meta.attempt, "state": ready, "ip": ip, "owner": owner(Some(&pod)), "created_at": pod.created_at}));
        rows.push(vec![
            short(&pod.id).to_owned(),
            meta.namespace,
            meta.name,
            ready.to_owned(),
            ip,
            format!("{} ago", table::ago(pod.created_at, now)),
            owner(Some(&pod)).to_owned(),
        ]);
    }
    show(format, &["POD ID", "NAMESPACE", "NAME", "STATE", "IP", "CREATED", "OWNER"], &rows, list);
    Ok(0)
}

/// Tells about the daemon and the node.
pub(crate) async fn info(client: &mut Client, format: Format) -> Result<u8, CliError> {
    let info = client.own.info(own::InfoRequest {}).await?.into_inner();
    let status = client.runtime.status(cri::StatusRequest { verbose: false }).await?.into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    let (containers, pods) = (client.containers().await?.len(), client.pods().await?.len());
    let images = client
        .images
        .list_images(cri::ListImagesRequest::default())
        .await?
        .into_inner()
        .images
        .len();
    let mut pairs = vec![
        ("Version", info.version),
        ("Process", info.pid.to_string()),
        ("Data", info.root_dir),
        ("State", info.state_dir),
        ("Kernel", info.kernel),
        ("Cgroups", format!("{} by {}", info.cgroup_layout, info.cgroup_driver)),
        ("Pods", pods.to_string()),
        ("Containers", containers.to_string()),
        ("Images", images.to_string()),
    ];
    let told = |condition: &cri::RuntimeCondition| {
        if condition.status { "yes".to_owned() } else { format!("no: {}", condition.message) }
    };
    for condition in &conditions {
        pairs.push((
            if condition.r#type == "NetworkReady" { "Network ready" } else { "Runtime ready" },
            told(condition),
        ));
    }
    match format {
        Format::Json => print(
            &Value::Object(
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), Value::String(value)))
                    .collect(),
            )
            .to_string(),
        ),
        Format::Table => pairs.iter().for_each(|(key, value)| print(&format!("{key:<15}{value}"))),
    }
    Ok(0)
}

/// Prints the daemon's version.
pub(crate) async fn version(client: &mut Client) -> Result<u8, CliError> {
    let daemon = client.runtime.version(cri::VersionRequest::default()).await?.into_inner();
    print(&format!("daemon       {} (CRI {})", daemon.runtime_version, daemon.runtime_api_version));
    Ok(0)
}
