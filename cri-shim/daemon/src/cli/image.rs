//! `wherry pull`, `images`, `rmi`, `image import`, `image export`: the daemon does the work, here a request
//! is made, progress is drawn and the answer shown.

use super::client::{Client, short};
use super::{CliError, Format, print, say, table};
use clap::{Args, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Arguments of `wherry pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Image
    pub(crate) image: String,
}

/// Arguments of `wherry rmi`.
#[derive(Debug, Args)]
pub(crate) struct Rmi {
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
    if client.images.image_status(request).await?.into_inner().image.is_some() {
        return Ok(());
    }
    say(&format!("{name} is not here yet; pulling it"));
    pull_with(name, client, false).await.map(|_id| ())
}

/// Pulls an image with a bar per layer.
pub(crate) async fn pull(name: &str, client: &mut Client) -> Result<String, CliError> {
    pull_with(name, client, true).await
}

async fn pull_with(name: &str, client: &mut Client, print_id: bool) -> Result<String, CliError> {
    let mut events =
        client.own.pull(own::PullRequest { image: name.to_owned() }).await?.into_inner();
    let mut bars = Bars::new();
    while let Some(event) = events.message().await? {
        if event.image_id.is_empty() {
            bars.show(&event);
            continue;
        }
        bars.end();
        if print_id {
            print(&event.image_id);
        }
        return Ok(event.image_id);
    }
    Err(CliError::new(format!("the daemon ended while it pulled {name}")))
}

/// A bar per layer on a terminal, a line per layer elsewhere.
struct Bars {
    all: MultiProgress,
    layers: BTreeMap<String, ProgressBar>,
    terminal: bool,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { all, layers: BTreeMap::new(), terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, event: &own::PullEvent) {
        let known = self.layers.contains_key(&event.layer);
        let all = &self.all;
        let bar = self.layers.entry(event.layer.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes}");
            let bar = ProgressBar::new(event.total).with_prefix(short(&event.layer).to_owned());
            all.add(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
        });
        bar.set_position(event.done);
        if event.done >= event.total && !bar.is_finished() {
            bar.finish();
            if !self.terminal {
                say(&format!("{} {}", short(&event.layer), table::size(event.total)));
            }
        } else if !known && !self.terminal {
            say(&format!("{} of {}", short(&event.layer), table::size(event.total)));
        }
    }

    fn end(&self) {
        let _no_terminal = self.all.clear();
    }
}

/// Lists images.
pub(crate) async fn images(client: &mut Client, format: Format) -> Result<u8, CliError> {
    let found =
        client.images.list_images(cri::ListImagesRequest::default()).await?.into_inner().images;
    if format == Format::Json {
        let list: Vec<_> = found
            .iter()
            .map(|image| json!({"id": image.id, "tags": image.repo_tags, "digests": image.repo_digests, "size": image.size, "pinned": image.pinned}))
            .collect();
        print(&serde_json::Value::Array(list).to_string());
        return Ok(0);
    }
    let mut rows = Vec::new();
    for image in &found {
        let none = vec!["<none>".to_owned()];
        let tags = if image.repo_tags.is_empty() { &none } else { &image.repo_tags };
        for tag in tags {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            let familiar = name
                .strip_prefix("docker.io/library/")
                .or_else(|| name.strip_prefix("docker.io/"))
                .unwrap_or(name);
            rows.push(vec![
                familiar.to_owned(),
                tag.to_owned(),
                short(&image.id).to_owned(),
                table::size(image.size),
            ]);
        }
    }
    table::show(&["IMAGE", "TAG", "ID", "SIZE"], &rows);
    Ok(0)
}

/// Removes images.
pub(crate) async fn rmi(args: &Rmi, client: &mut Client) -> Result<u8, CliError> {
    for name in &args.images {
        let request = cri::ImageStatusRequest { image: Some(spec(name)), verbose: false };
        if client.images.image_status(request).await?.into_inner().image.is_none() {
            return Err(CliError::new(format!(
                "there is no image \"{name}\"; \"wherry images\" lists them"
            )));
        }
        client.images.remove_image(cri::RemoveImageRequest { image: Some(spec(name)) }).await?;
        print(name);
    }
    Ok(0)
}

/// Imports, exports, tags.
pub(crate) async fn image(verb: ImageVerb, client: &mut Client) -> Result<u8, CliError> {
    let absolute = |path: PathBuf| {
        let whole = std::path::absolute(&path)
            .map_err(|error| CliError::new(format!("{}: {error}", path.display())))?;
        Ok::<_, CliError>(whole.to_string_lossy().into_owned())
    };
    match verb {
        ImageVerb::Import { tag, path } => {
            let request =
                own::ImportRequest { path: absolute(path)?, tag: tag.unwrap_or_default() };
            for name in client.own.import(request).await?.into_inner().images {
                print(&name);
            }
        }
        ImageVerb::Export { kind, output, images } => {
            let request = own::ExportRequest { images, path: absolute(output)?, format: kind };
            client.own.export(request).await?;
        }
        ImageVerb::Tag { image, tag } => {
            client.own.tag(own::TagRequest { image, tag }).await?;
        }
    }
    Ok(0)
}
