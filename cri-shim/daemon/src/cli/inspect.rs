//! `wherry inspect`: everything that the daemon knows about containers, pods and images, as one list of
//! JSON, as Docker prints it. The words are the daemon's records.

use super::client::Client;
use super::failure::CliError;
use super::print;
use clap::Args;
use serde_json::{Map, Value, json};
use shim_proto::runtime_v1 as cri;

/// Arguments of `wherry inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Containers, pods or images
    #[arg(required = true)]
    names: Vec<String>,
}

/// Shows everything about something.
pub(crate) async fn inspect(args: &Inspect, client: &mut Client) -> Result<u8, CliError> {
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &args.names {
        match one(name, client).await {
            Ok(value) => found.push(value),
            Err(error) => code = error.tell(),
        }
    }
    print(&serde_json::to_string_pretty(&found).unwrap_or_default())?;
    Ok(code)
}

/// A container, else a pod, else an image.
async fn one(name: &str, client: &mut Client) -> Result<Value, CliError> {
    let no_container = match client.find(name).await {
        Ok(found) => {
            let request =
                cri::ContainerStatusRequest { container_id: found.container.id, verbose: true };
            let answer = client.runtime.container_status(request).await?.into_inner();
            return Ok(info(answer.info));
        }
        Err(no_container) => no_container,
    };
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: name.to_owned(), verbose: true };
    if let Ok(answer) = client.runtime.pod_sandbox_status(request).await {
        return Ok(info(answer.into_inner().info));
    }
    let image = Some(cri::ImageSpec { image: name.to_owned(), ..cri::ImageSpec::default() });
    let request = cri::ImageStatusRequest { image, verbose: true };
    let answer = client.images.image_status(request).await.map(tonic::Response::into_inner);
    // What cannot be the name of an image is no container either.
    let Ok(cri::ImageStatusResponse { image: Some(image), info: more }) = answer else {
        return Err(no_container);
    };
    Ok(
        json!({"id": image.id, "tags": image.repo_tags, "digests": image.repo_digests, "size": image.size, "more": info(more)}),
    )
}

/// The verbose part of a status, as JSON.
fn info(parts: std::collections::BTreeMap<String, String>) -> Value {
    let parsed = parts
        .into_iter()
        .map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(Value::String(text))));
    let mut object: Map<String, Value> = parsed.collect();
    object.remove("info").unwrap_or(Value::Object(object))
}
