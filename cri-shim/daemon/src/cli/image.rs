//! `wherry pull`, `images`, `rmi`, `image import`, `image export`: the daemon does the work, here a request
//! is made and the answer shown.

use super::client::{Client, short};
use super::failure::CliError;
use super::progress::Bars;
use super::{Format, each, print, say, table};
use clap::{Args, Subcommand};
use serde_json::json;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::path::{Path, PathBuf};
use tonic::Code;

/// Arguments of `wherry pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Image
    pub(crate) image: String,
}

/// Arguments of `wherry images`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only those with this name, or this name and tag
    name: Option<String>,
}

/// Arguments of `wherry rmi`.
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Also if a container is made of it, or an id has several names
    #[arg(short, long)]
    force: bool,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

/// Verbs of `wherry image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Take images out of an OCI layout, an OCI archive or a docker archive
    Import {
        /// Name for an image that brings none
        #[arg(long, value_name = "NAME")]
        tag: Option<String>,
        /// File or folder
        path: PathBuf,
    },
    /// Write images into an archive or layout
    Export {
        /// oci, oci-dir or docker
        #[arg(long = "type", default_value = "oci", value_name = "TYPE")]
        kind: String,
        /// Where to; must not exist
        #[arg(short, long, value_name = "PATH")]
        output: PathBuf,
        /// Images
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image a further name
    Tag {
        /// Image
        image: String,
        /// New name
        tag: String,
    },
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..cri::ImageSpec::default() }
}

/// Pulls an image unless it is here.
pub(crate) async fn ensure(name: &str, client: &mut Client) -> Result<(), CliError> {
    let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: false };
    let known = client.images.image_status(request).await;
    let known = known.map_err(|status| CliError::at(&format!("use the image {name}"), &status))?;
    if known.into_inner().image.is_some() {
        return Ok(());
    }
    say(&format!("{name} is not here yet; pulling it"));
    bring(name, client).await.map(drop)
}

/// Pulls an image and prints its id.
pub(crate) async fn pull(name: &str, client: &mut Client) -> Result<u8, CliError> {
    print(&bring(name, client).await?)?;
    Ok(0)
}

/// Pulls an image and shows how it comes along; its id.
async fn bring(name: &str, client: &mut Client) -> Result<String, CliError> {
    let failed = |status: tonic::Status| CliError::at(&format!("pull {name}"), &status);
    let request = own::PullRequest { image: name.to_owned() };
    let mut events = client.own.pull(request).await.map_err(failed)?.into_inner();
    let mut bars = Bars::new();
    while let Some(event) = events.message().await.map_err(failed)? {
        if !event.image_id.is_empty() {
            bars.end();
            return Ok(event.image_id);
        }
        bars.show(&event);
    }
    Err(CliError::new(format!("pull {name}: the daemon ended; pull it again once it runs")))
}

/// Lists images.
pub(crate) async fn images(
    args: &List,
    client: &mut Client,
    format: Format,
) -> Result<u8, CliError> {
    let request = cri::ListImagesRequest::default();
    let mut found = client.images.list_images(request).await?.into_inner().images;
    if let Some(wanted) = &args.name {
        for image in &mut found {
            image.repo_tags.retain(|tag| is_named(tag, wanted));
        }
        found.retain(|image| !image.repo_tags.is_empty());
    }
    match format {
        Format::Json => {
            let list = found.iter().map(|image| json!({"id": image.id, "tags": image.repo_tags, "digests": image.repo_digests, "size": image.size, "pinned": image.pinned}));
            print(&serde_json::Value::Array(list.collect()).to_string())?;
        }
        Format::Table if args.quiet => {
            for image in &found {
                print(short(&image.id))?;
            }
        }
        Format::Table => {
            let rows: Vec<_> = found.iter().flat_map(rows).collect();
            table::show(&["IMAGE", "TAG", "ID", "SIZE"], &rows)?;
        }
    }
    Ok(0)
}

/// A row for each name of an image; one without a name has one too.
fn rows(image: &cri::Image) -> Vec<Vec<String>> {
    let none = vec!["<none>".to_owned()];
    let tags = if image.repo_tags.is_empty() { &none } else { &image.repo_tags };
    let row = |tag: &String| {
        let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
        vec![
            familiar(name).to_owned(),
            tag.to_owned(),
            short(&image.id).to_owned(),
            table::size(image.size),
        ]
    };
    tags.iter().map(row).collect()
}

/// A name as people say it: Docker Hub's own need no host.
fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/"));
    short.unwrap_or(name)
}

/// True if `wanted` is this tag, or its name without the tag.
fn is_named(tag: &str, wanted: &str) -> bool {
    let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
    [tag, name, familiar(tag), familiar(name)].contains(&wanted)
}

/// Removes names of images, and images with their last one. What is gone already is told, and is no failure
/// for who says -f.
pub(crate) async fn rmi(args: &Rmi, client: &Client) -> Result<u8, CliError> {
    each(&args.images, client, async |client, name| {
        let request = own::UntagRequest { image: name.to_owned(), force: args.force };
        match client.own.untag(request).await.map(tonic::Response::into_inner) {
            Ok(own::UntagResponse { untagged, deleted }) => {
                let untagged = untagged.iter().map(|name| format!("Untagged: {name}"));
                let deleted = Some(deleted).filter(|id| !id.is_empty());
                let deleted = deleted.map(|id| format!("Deleted: {id}"));
                Ok(untagged.chain(deleted).collect::<Vec<_>>().join("\n"))
            }
            Err(status) if status.code() == Code::NotFound => {
                let missing = CliError::new(format!(
                    "there is no image \"{name}\"; \"wherry images\" lists them"
                ));
                if !args.force {
                    return Err(missing);
                }
                missing.tell();
                Ok(String::new())
            }
            Err(status) => Err(status.into()),
        }
    })
    .await
}

/// A path as the daemon knows it.
pub(crate) fn absolute(path: &Path) -> Result<String, CliError> {
    let whole = std::path::absolute(path)
        .map_err(|error| CliError::new(format!("{}: {error}", path.display())))?;
    Ok(whole.to_string_lossy().into_owned())
}

/// Imports, exports, tags.
pub(crate) async fn image(verb: ImageVerb, client: &mut Client) -> Result<u8, CliError> {
    match verb {
        ImageVerb::Import { tag, path } => {
            let path = absolute(&path)?;
            let failed = |status| CliError::at(&format!("import {path}"), &status);
            let request = own::ImportRequest {
                path: path.clone(),
                tag: tag.unwrap_or_default(),
                ..own::ImportRequest::default()
            };
            for name in client.own.import(request).await.map_err(failed)?.into_inner().images {
                print(&name)?;
            }
        }
        ImageVerb::Export { kind, output, images } => {
            let path = absolute(&output)?;
            let failed = |status| CliError::at(&format!("export to {path}"), &status);
            let request = own::ExportRequest { images, path: path.clone(), format: kind };
            client.own.export(request).await.map_err(failed)?;
        }
        ImageVerb::Tag { image, tag } => {
            let failed = |status| CliError::at(&format!("tag {image}"), &status);
            let request = own::TagRequest { image: image.clone(), tag };
            client.own.tag(request).await.map_err(failed)?;
        }
    }
    Ok(0)
}
