//! `wherry stop`, `start`, `rm`. A kubelet's containers are left alone without --force; one name that is
//! wrong stops nobody else.

use super::client::{Client, Found};
use super::each;
use super::failure::CliError;
use clap::Args;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;

/// What may be done about a kubelet's container.
const FORCE: &str = ", or --force";

/// Arguments of `wherry stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until it is killed; -1 = never
    #[arg(short, long, alias = "timeout", default_value_t = GRACE, allow_negative_numbers = true)]
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
    /// Also running containers
    #[arg(short = 'f')]
    running: bool,
    /// Also running containers, also a kubelet's
    #[arg(long)]
    force: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Seconds from the stop signal to the kill, where nothing else is said.
pub(crate) const GRACE: i64 = 10;

/// Stops containers.
pub(crate) async fn stop(args: &Stop, client: &Client) -> Result<u8, CliError> {
    // Docker's -1 waits for ever.
    let timeout = if args.time < 0 { i64::MAX } else { args.time };
    each(&args.containers, client, async |client, name| {
        let found = client.find(name).await?;
        found.may_change(args.force, FORCE)?;
        let request = cri::StopContainerRequest { container_id: found.container.id, timeout };
        client.runtime.stop_container(request).await?;
        Ok(name.to_owned())
    })
    .await
}

/// Starts ended containers again.
pub(crate) async fn start(args: &Start, client: &Client) -> Result<u8, CliError> {
    each(&args.containers, client, async |client, name| {
        let found = client.find(name).await?;
        found.may_change(false, "")?;
        let request = own::StartAgainRequest { container_id: found.container.id };
        let started = client.own.start_again(request).await;
        started.map_err(|status| CliError::of_start(&status))?;
        Ok(name.to_owned())
    })
    .await
}

/// Removes containers. What is gone already is told, and is no failure for who says -f. That is a habit, as
/// in `rm -f $(ps -aq)`, so a kubelet's are removed only where the word is spelled out.
pub(crate) async fn rm(args: &Rm, client: &Client) -> Result<u8, CliError> {
    let by_force = args.running || args.force;
    each(&args.containers, client, async |client, name| {
        match client.find(name).await {
            Ok(found) => {
                found.may_change(args.force, FORCE)?;
                if found.runs() && !by_force {
                    return Err(CliError::new(format!(
                        "container \"{name}\" runs; stop it first with \"wherry stop {name}\", or use -f"
                    )));
                }
                remove(client, &found).await?;
            }
            Err(missing) => match client.find_empty_pod(name).await? {
                Some(pod) => remove_pod(client, &pod).await?,
                None if by_force => {
                    missing.tell();
                    return Ok(String::new());
                }
                None => return Err(missing),
            },
        }
        Ok(name.to_owned())
    })
    .await
}

/// Removes a container, and its pod where the command line made it.
async fn remove(client: &mut Client, found: &Found) -> Result<(), CliError> {
    if found.is_own() {
        return remove_pod(client, &found.container.pod_sandbox_id).await;
    }
    let request = cri::RemoveContainerRequest { container_id: found.container.id.clone() };
    client.runtime.remove_container(request).await?;
    Ok(())
}

/// Stops and removes a pod.
pub(crate) async fn remove_pod(client: &mut Client, id: &str) -> Result<(), CliError> {
    let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime.remove_pod_sandbox(request).await?;
    Ok(())
}
