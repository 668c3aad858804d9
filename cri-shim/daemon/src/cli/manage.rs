//! `wherry stop`, `start`, `rm`, `inspect`. A kubelet's containers are left alone without --force.

use super::client::{Client, Found};
use super::{CliError, print};
use clap::Args;
use serde_json::{Map, Value, json};
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::path::Path;

/// Arguments of `wherry stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until it is killed
    #[arg(short, long, default_value_t = 10)]
    time: i64,
    /// Also a kubelet's containers
    #[arg(long)]
    force: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Arguments of `wherry start`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Arguments of `wherry rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Also running containers, also a kubelet's
    #[arg(short, long)]
    force: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Arguments of `wherry inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Container, pod or image
    name: String,
}

/// Stops containers.
pub(crate) async fn stop(args: &Stop, client: &mut Client) -> Result<u8, CliError> {
    for name in &args.containers {
        let found = client.find(name).await?;
        found.may_change(args.force)?;
        let request =
            cri::StopContainerRequest { container_id: found.container.id, timeout: args.time };
        client.runtime.stop_container(request).await?;
        print(name);
    }
    Ok(0)
}

/// Starts ended containers again.
pub(crate) async fn start(args: &Start, client: &mut Client) -> Result<u8, CliError> {
    for name in &args.containers {
        let found = client.find(name).await?;
        match found.container.state() {
            cri::ContainerState::ContainerRunning => {}
            cri::ContainerState::ContainerCreated => {
                let request = cri::StartContainerRequest { container_id: found.container.id };
                client
                    .runtime
                    .start_container(request)
                    .await
                    .map_err(|status| CliError::of_start(&status))?;
            }
            cri::ContainerState::ContainerExited | cri::ContainerState::ContainerUnknown => {
                found.may_change(false)?;
                let request = own::StartAgainRequest { container_id: found.container.id };
                client
                    .own
                    .start_again(request)
                    .await
                    .map_err(|status| CliError::of_start(&status))?;
            }
        }
        print(name);
    }
    Ok(0)
}

/// Removes containers.
pub(crate) async fn rm(args: &Rm, client: &mut Client) -> Result<u8, CliError> {
    for name in &args.containers {
        let found = client.find(name).await?;
        found.may_change(args.force)?;
        if found.container.state() == cri::ContainerState::ContainerRunning && !args.force {
            return Err(CliError::new(format!(
                "container \"{name}\" runs; stop it first, or use -f"
            )));
        }
        remove(client, &found).await?;
        print(name);
    }
    Ok(0)
}

/// Removes a container, and its pod with its logs where the command line made it.
pub(crate) async fn remove(client: &mut Client, found: &Found) -> Result<(), CliError> {
    if found.is_own() {
        let log = client.status(&found.container.id).await?.log_path;
        let root = client.own.info(own::InfoRequest {}).await?.into_inner().root_dir;
        remove_pod(client, &found.container.pod_sandbox_id).await?;
        if let Some(folder) = own_logs(&log, &root) {
            let _missing_is_done = std::fs::remove_dir_all(folder);
        }
        return Ok(());
    }
    let request = cri::RemoveContainerRequest { container_id: found.container.id.clone() };
    client.runtime.remove_container(request).await?;
    Ok(())
}

/// The folder of a log, if it is one that `run` made: a label of ours on somebody else's pod must not
/// make us delete elsewhere.
fn own_logs<'a>(log: &'a str, root: &str) -> Option<&'a Path> {
    let folder = Path::new(log).parent()?;
    let ours = folder.parent()? == Path::new(root).join("logs")
        && folder.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    ours.then_some(folder)
}

/// Stops and removes a pod.
pub(crate) async fn remove_pod(client: &mut Client, id: &str) -> Result<(), CliError> {
    client
        .runtime
        .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() })
        .await?;
    Ok(())
}

/// Shows everything about something.
pub(crate) async fn inspect(args: &Inspect, client: &mut Client) -> Result<u8, CliError> {
    let shown = match client.find(&args.name).await {
        Ok(found) => {
            let request =
                cri::ContainerStatusRequest { container_id: found.container.id, verbose: true };
            info(client.runtime.container_status(request).await?.into_inner().info)
        }
        Err(no_container) => other(args, client).await?.ok_or(no_container)?,
    };
    print(&serde_json::to_string_pretty(&shown).unwrap_or_default());
    Ok(0)
}

async fn other(args: &Inspect, client: &mut Client) -> Result<Option<Value>, CliError> {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: args.name.clone(), verbose: true };
    if let Ok(answer) = client.runtime.pod_sandbox_status(request).await {
        return Ok(Some(info(answer.into_inner().info)));
    }
    let image = Some(cri::ImageSpec { image: args.name.clone(), ..cri::ImageSpec::default() });
    let answer = client
        .images
        .image_status(cri::ImageStatusRequest { image, verbose: true })
        .await?
        .into_inner();
    Ok(answer.image.map(|image| {
        json!({"id": image.id, "tags": image.repo_tags, "digests": image.repo_digests, "size": image.size, "more": info(answer.info)})
    }))
}

/// The verbose part of a status, as JSON.
fn info(parts: std::collections::BTreeMap<String, String>) -> Value {
    let parsed = parts
        .into_iter()
        .map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(Value::String(text))));
    let mut object: Map<String, Value> = parsed.collect();
    object.remove("info").unwrap_or(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::own_logs;
    use std::path::Path;

    #[test]
    fn only_our_own_log_folders_are_deleted() {
        let root = "/var/lib/wherry";
        assert_eq!(
            own_logs("/var/lib/wherry/logs/0123/container.log", root),
            Some(Path::new("/var/lib/wherry/logs/0123"))
        );
        for foreign in [
            "/var/log/pods/a_b_c/web/0.log",
            "/var/lib/wherry/logs/container.log",
            "/var/lib/wherry/logs/../container.log",
            "container.log",
            "",
        ] {
            assert_eq!(own_logs(foreign, root), None, "{foreign}");
        }
    }
}
