//! `ctr`: containerd's own client, as far as installers call it. There is one namespace, `k8s.io`. Images are
//! always unpacked, for this machine, onto overlayfs; flags that ask for what is so anyway are taken.

use super::spool::Spool;
use super::{SOCKET, VERSION, ended, parse};
use crate::cli::client::Client;
use crate::cli::failure::CliError;
use crate::cli::{self, image, print, table};
use clap::{ArgAction, Args, Parser, Subcommand};
use serde_json::json;
use shim_image::config::architecture;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const KNOWN: &str = "ctr with version, info, images import|list|pull|remove|tag and content fetch, in the namespace k8s.io";

/// The label by which containerd keeps an image from a kubelet's collection of garbage.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

#[derive(Debug, Parser)]
#[command(name = "ctr", version = VERSION, disable_version_flag = true)]
struct Ctr {
    /// Print the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
    /// The daemon's socket; containerd's if it is there, else Wherry's
    #[arg(short, long, env = "CONTAINERD_ADDRESS", value_name = "PATH")]
    address: Option<PathBuf>,
    /// There is one
    #[arg(short, long, env = "CONTAINERD_NAMESPACE", default_value = "k8s.io", value_parser = ["k8s.io"])]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print versions
    Version,
    /// Tell about the daemon; succeeds once it answers
    Info,
    /// Images
    #[command(alias = "image", alias = "i")]
    Images {
        #[command(subcommand)]
        what: Images,
    },
    /// What images are made of
    Content {
        #[command(subcommand)]
        what: Content,
    },
}

#[derive(Debug, Subcommand)]
enum Images {
    /// Take images out of an archive
    Import(Import),
    /// List images
    #[command(alias = "ls")]
    List(List),
    /// Pull images
    Pull(Fetch),
    /// Remove names of images, and images with their last one
    #[command(alias = "rm", alias = "delete", alias = "del")]
    Remove {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image further names
    Tag(Tag),
}

#[derive(Debug, Subcommand)]
enum Content {
    /// Pull images
    Fetch(Fetch),
}

/// What is so anyway, with Wherry.
#[derive(Debug, Args)]
struct Anyway {
    /// Import for every platform: of an archive for several, what fits this machine is taken
    #[arg(long)]
    all_platforms: bool,
    /// Must be this machine's
    #[arg(long, value_parser = platform)]
    platform: Vec<()>,
    /// Nothing else than overlayfs is there
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    /// The client's half has nothing to do
    #[arg(long)]
    local: bool,
}

#[derive(Debug, Args)]
struct Import {
    #[command(flatten)]
    _anyway: Anyway,
    /// Also name them by their digests
    #[arg(long)]
    digests: bool,
    /// They are unpacked all the same
    #[arg(long)]
    no_unpack: bool,
    /// Keep them from a kubelet's collection of garbage
    #[arg(long, value_parser = [PINNED])]
    label: Vec<String>,
    /// An archive or a layout; - is standard input
    archive: PathBuf,
}

#[derive(Debug, Args)]
struct List {
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// name==NAME
    #[arg(value_parser = name_filter)]
    filters: Vec<String>,
}

#[derive(Debug, Args)]
struct Fetch {
    #[command(flatten)]
    _anyway: Anyway,
    image: String,
}

#[derive(Debug, Args)]
struct Tag {
    /// Take a name away from another image
    #[arg(long)]
    force: bool,
    /// Names are completed as Docker's are
    #[arg(long)]
    skip_reference_check: bool,
    #[command(flatten)]
    _local: Local,
    /// A name or an id
    source: String,
    #[arg(required = true)]
    targets: Vec<String>,
}

#[derive(Debug, Args)]
struct Local {
    /// The client's half has nothing to do
    #[arg(long)]
    local: bool,
}

pub(super) fn run(words: Vec<OsString>) -> ExitCode {
    match parse::<Ctr>(words, KNOWN) {
        Ok(called) => ended(cli::to_end(one(called))),
        Err(told) => told,
    }
}

/// Only this machine's.
fn platform(text: &str) -> Result<(), String> {
    let own = format!("linux/{}", architecture(std::env::consts::ARCH));
    if text == own || text.starts_with(&format!("{own}/")) {
        Ok(())
    } else {
        Err(format!("this machine is {own}"))
    }
}

fn name_filter(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("name==").filter(|name| !name.is_empty());
    name.map(ToOwned::to_owned).ok_or_else(|| "the only filter is name==NAME".to_owned())
}

async fn one(called: Ctr) -> Result<u8, CliError> {
    let found = || Some(PathBuf::from(SOCKET)).filter(|path| path.exists());
    let own = || PathBuf::from(cli::SOCKET);
    let mut client = Client::connect(&called.address.or_else(found).unwrap_or_else(own)).await?;
    match called.command {
        Command::Version => version(&mut client).await?,
        Command::Info => info(&mut client).await?,
        Command::Images { what: Images::Import(args) } => import(&args, &mut client).await?,
        Command::Images { what: Images::List(args) } => list(&args, &mut client).await?,
        Command::Images { what: Images::Remove { images } } => remove(images, &mut client).await?,
        Command::Images { what: Images::Tag(args) } => tag(args, &mut client).await?,
        Command::Images { what: Images::Pull(args) }
        | Command::Content { what: Content::Fetch(args) } => {
            image::pull(&args.image, &mut client).await?;
        }
    }
    Ok(0)
}

async fn version(client: &mut Client) -> Result<(), CliError> {
    let daemon = client.own.info(own::InfoRequest {}).await?.into_inner();
    let client = env!("CARGO_PKG_VERSION");
    print(&format!("Client: wherry\n  Version:  v{client}"))?;
    print(&format!("\nServer: wherry\n  Version:  v{}", daemon.version))
}

async fn info(client: &mut Client) -> Result<(), CliError> {
    let daemon = client.own.info(own::InfoRequest {}).await?.into_inner();
    let server = json!({"name": "wherry", "version": daemon.version, "pid": daemon.pid});
    print(&format!("{:#}", json!({"server": server})))
}

async fn import(args: &Import, client: &mut Client) -> Result<(), CliError> {
    let spool = if args.archive == Path::new("-") {
        let daemon = client.own.info(own::InfoRequest {}).await?.into_inner();
        Some(Spool::of_stdin(Path::new(&daemon.root_dir))?)
    } else {
        None
    };
    let path = match &spool {
        Some(spool) => spool.path(),
        None => image::absolute(&args.archive)?,
    };
    let request = own::ImportRequest {
        path: path.clone(),
        tag: String::new(),
        pinned: !args.label.is_empty(),
        digests: args.digests,
    };
    // Nobody knows it by the name that the daemon reads it by.
    let what = if spool.is_some() { "standard input" } else { path.as_str() };
    let failed = |status: tonic::Status| {
        CliError::new(format!("import {what}: {}", status.message().replace(&path, what)))
    };
    for name in client.own.import(request).await.map_err(failed)?.into_inner().images {
        print(&name)?;
    }
    Ok(())
}

async fn list(args: &List, client: &mut Client) -> Result<(), CliError> {
    let request = cri::ListImagesRequest::default();
    let found = client.images.list_images(request).await?.into_inner().images;
    let mut rows: Vec<Vec<String>> = found.iter().flat_map(rows).collect();
    if !args.filters.is_empty() {
        rows.retain(|row| row.first().is_some_and(|name| args.filters.contains(name)));
    }
    rows.sort();
    if args.quiet {
        rows.iter().filter_map(|row| row.first()).try_for_each(|name| print(name))
    } else {
        table::show(&["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"], &rows)
    }
}

/// A row for each name of an image, by tag and by digest, and one for its id. Whether a name stood for an
/// index or for a manifest is not kept.
fn rows(image: &cri::Image) -> Vec<Vec<String>> {
    let row = |name: &String| {
        let repository = name.split('@').next().unwrap_or(name);
        let repository =
            repository.rsplit_once(':').map_or(repository, |(repository, _)| repository);
        let mut digests = image.repo_digests.iter().filter_map(|digest| digest.split_once('@'));
        let digest = match name.split_once('@') {
            Some((_, digest)) => Some(digest),
            None => digests.find(|(of, _)| *of == repository).map(|(_, digest)| digest),
        };
        vec![
            name.clone(),
            "-".to_owned(),
            digest.unwrap_or("-").to_owned(),
            table::size(image.size),
            format!("linux/{}", architecture(std::env::consts::ARCH)),
            if image.pinned { PINNED } else { "-" }.to_owned(),
        ]
    };
    let id = std::iter::once(&image.id);
    image.repo_tags.iter().chain(&image.repo_digests).chain(id).map(row).collect()
}

async fn remove(images: Vec<String>, client: &mut Client) -> Result<(), CliError> {
    for image in images {
        let failed = |status| CliError::at(&format!("remove {image}"), &status);
        let request = own::UntagRequest { image: image.clone(), force: false };
        client.own.untag(request).await.map_err(failed)?;
        print(&image)?;
    }
    Ok(())
}

async fn tag(args: Tag, client: &mut Client) -> Result<(), CliError> {
    for target in args.targets {
        let spec = cri::ImageSpec { image: target.clone(), ..cri::ImageSpec::default() };
        let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
        let known = client.images.image_status(request).await?.into_inner().image;
        if known.is_some() && !args.force {
            return Err(CliError::new(format!(
                "the image {target} exists already; --force moves its name"
            )));
        }
        let failed = |status| CliError::at(&format!("tag {}", args.source), &status);
        let request = own::TagRequest { image: args.source.clone(), tag: target.clone() };
        client.own.tag(request).await.map_err(failed)?;
        print(&target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Ctr, platform};
    use clap::Parser;

    #[test]
    fn the_lines_that_kind_calls_are_understood() {
        let own = format!("--platform=linux/{}", super::architecture(std::env::consts::ARCH));
        for line in [
            "info",
            "--namespace=k8s.io images import --all-platforms --digests --snapshotter=overlayfs -",
            "--namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests -",
            "--namespace=k8s.io images tag --force sha256:0123 docker.io/library/x:1",
            "--namespace=k8s.io images list -q",
            "-n k8s.io i ls -q name==docker.io/library/x:1",
            "-n k8s.io image rm x y",
            &format!("--namespace=k8s.io content fetch {own} x"),
        ] {
            let words = std::iter::once("ctr").chain(line.split(' '));
            Ctr::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn another_machine_is_refused() {
        platform("windows/amd64").unwrap_err();
        platform("linux/none").unwrap_err();
    }
}
