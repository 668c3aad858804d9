//! `wherry ps`, `pods`, `info`, `version`: what the daemon answers, as tables or JSON. Only columns, filters
//! and order are made here.

use super::client::{Client, is_kubelets, is_own, short};
use super::failure::CliError;
use super::{Format, print, table};
use clap::Args;
use serde_json::{Value, json};
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;

/// Arguments of `wherry ps`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker ps")]
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
}

/// Longest command that a table shows, with its quotes, as Docker has it.
const COMMAND: usize = 22;

/// One container of the list.
struct Entry {
    container: cri::Container,
    status: cri::ContainerStatus,
    /// What it runs.
    command: String,
    ports: String,
    owner: &'static str,
}

/// Lists containers.
pub(crate) async fn ps(args: &Ps, client: &mut Client, format: Format) -> Result<u8, CliError> {
    let (mut containers, pods) = (client.containers().await?, client.pods().await?);
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    let runs =
        |container: &cri::Container| container.state() == cri::ContainerState::ContainerRunning;
    let mut entries = Vec::new();
    for container in containers.into_iter().filter(|container| args.all || runs(container)) {
        let pod = pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        // It may have been removed since it was listed.
        entries.extend(entry(container, pod, client).await);
    }
    let now = shim_runtime::host::now();
    match format {
        Format::Json => {
            let list = entries.iter().map(|entry| entry.json(now)).collect();
            print(&Value::Array(list).to_string())?;
        }
        Format::Table if args.quiet => {
            for entry in &entries {
                print(entry.id(args))?;
            }
        }
        Format::Table => {
            let head = [
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "PORTS",
                "NAMES",
                "OWNER",
            ];
            let rows: Vec<_> = entries.iter().map(|entry| entry.row(args, now)).collect();
            table::show(&head, &rows)?;
        }
    }
    Ok(0)
}

async fn entry(
    container: cri::Container,
    pod: Option<&cri::PodSandbox>,
    client: &mut Client,
) -> Option<Entry> {
    let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
    let answer = client.runtime.container_status(request).await.ok()?.into_inner();
    let told: Option<Value> =
        answer.info.get("info").and_then(|text| serde_json::from_str(text).ok());
    let words = told.as_ref().and_then(|told| told.get("args")?.as_array());
    let ports = pod.and_then(|pod| pod.annotations.get("wherry.dev/ports"));
    let words = words.into_iter().flatten().filter_map(Value::as_str);
    Some(Entry {
        command: words.collect::<Vec<_>>().join(" "),
        status: answer.status?,
        ports: ports.cloned().unwrap_or_default(),
        owner: owner(pod),
        container,
    })
}

impl Entry {
    fn id(&self, args: &Ps) -> &str {
        if args.no_trunc { &self.container.id } else { short(&self.container.id) }
    }

    fn name(&self) -> &str {
        self.container.metadata.as_ref().map_or("", |known| known.name.as_str())
    }

    fn image(&self) -> &str {
        self.status.image.as_ref().map_or("", |image| image.image.as_str())
    }

    fn json(&self, now: i64) -> Value {
        let state = self.status.state().as_str_name().trim_start_matches("CONTAINER_");
        json!({
            "id": self.container.id, "name": self.name(), "image": self.image(),
            "command": self.command, "state": state.to_ascii_lowercase(),
            "status": state_words(&self.status, now), "exit_code": self.status.exit_code,
            "ports": self.ports, "created_at": self.container.created_at,
            "pod": self.container.pod_sandbox_id, "owner": self.owner,
        })
    }

    fn row(&self, args: &Ps, now: i64) -> Vec<String> {
        let command = format!("\"{}\"", self.command);
        let most = if args.no_trunc { usize::MAX } else { COMMAND };
        vec![
            self.id(args).to_owned(),
            self.image().to_owned(),
            table::beginning(&command, most),
            format!("{} ago", table::ago(self.container.created_at, now)),
            state_words(&self.status, now),
            self.ports.clone(),
            self.name().to_owned(),
            self.owner.to_owned(),
        ]
    }
}

fn state_words(status: &cri::ContainerStatus, now: i64) -> String {
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

fn show(
    format: Format,
    head: &[&str],
    rows: &[Vec<String>],
    list: Vec<Value>,
) -> Result<(), CliError> {
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
    show(format, &["POD ID", "NAMESPACE", "NAME", "STATE", "IP", "CREATED", "OWNER"], &rows, list)?;
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
    pairs.extend(conditions.iter().map(ready));
    match format {
        Format::Json => {
            let pairs = pairs.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text)));
            print(&Value::Object(pairs.collect()).to_string())?;
        }
        Format::Table => {
            let lines = pairs.iter().map(|(key, text)| format!("{key:<15}{text}"));
            print(&lines.collect::<Vec<_>>().join("\n"))?;
        }
    }
    Ok(0)
}

/// A condition of the node, for people.
fn ready(condition: &cri::RuntimeCondition) -> (&'static str, String) {
    let is_network = condition.r#type == "NetworkReady";
    let only = if is_network { "; only a kubelet's pods need it" } else { "" };
    let told = if condition.status {
        "yes".to_owned()
    } else {
        format!("no: {}{only}", condition.message)
    };
    (if is_network { "Network ready" } else { "Runtime ready" }, told)
}

/// Prints the daemon's version.
pub(crate) async fn version(client: &mut Client) -> Result<u8, CliError> {
    let daemon = client.runtime.version(cri::VersionRequest::default()).await?.into_inner();
    print(&format!(
        "daemon       {} (CRI {})",
        daemon.runtime_version, daemon.runtime_api_version
    ))?;
    Ok(0)
}
