//! Images that every cluster has in its registry: `CoreDNS`, the sandbox image of the peer, and small
//! stand-ins for `busybox` and `httpd` of Docker Hub, made from local files. Nothing is pulled.

use super::layout::{Home, Machine, REGISTRY, Settings};
use super::space::{inside, run, until};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An image to be made.
struct Image {
    repository: &'static str,
    tag: &'static str,
    /// What runs, without arguments of the container.
    entrypoint: &'static [&'static str],
    /// Its arguments, or the program where there is no entrypoint.
    command: &'static [&'static str],
}

const IMAGES: [Image; 5] = [
    Image {
        repository: "coredns/coredns",
        tag: "v1.15.0",
        entrypoint: &["/coredns"],
        command: &[],
    },
    Image { repository: "pause", tag: "3.10", entrypoint: &["/pause"], command: &[] },
    Image { repository: "library/busybox", tag: "latest", entrypoint: &[], command: &["sh"] },
    httpd("latest"),
    httpd("2.4"),
];

/// As a first process, busybox's httpd does not hear SIGTERM, which the real one ends at.
const SERVE: &str = "trap 'exit 0' TERM; httpd -f -vv -p 80 -h /www & wait";

const fn httpd(tag: &'static str) -> Image {
    Image { repository: "library/httpd", tag, entrypoint: &[], command: &["sh", "-c", SERVE] }
}

/// Makes and pushes those that the registry has not.
pub fn push(home: &Home, settings: &Settings) -> anyhow::Result<()> {
    let missing: Vec<&Image> = IMAGES.iter().filter(|image| !is_there(settings, image)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    until("the registry", Duration::from_secs(20), || registry_answers(home).then_some(()))?;
    let scratch = tempfile::tempdir().context("make a scratch folder")?;
    for image in missing {
        let tree = scratch.path().join(image.repository).join(image.tag);
        fs::create_dir_all(&tree)?;
        fill(&tree, image, settings)?;
        let layout = make(scratch.path(), &tree, image)
            .with_context(|| format!("make the image {}", image.repository))?;
        let to = format!("docker://{REGISTRY}/{}:{}", image.repository, image.tag);
        let mut copy = inside(home, Machine::Control, true)?;
        copy.args(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        let output = copy.arg(format!("oci:{layout}")).arg(&to).output().context("run skopeo")?;
        if !output.status.success() {
            bail!("push {to}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

fn is_there(settings: &Settings, image: &Image) -> bool {
    let repositories = settings.images.join("docker/registry/v2/repositories");
    repositories.join(image.repository).join("_manifests/tags").join(image.tag).is_dir()
}

fn registry_answers(home: &Home) -> bool {
    let Ok(mut curl) = inside(home, Machine::Control, true) else { return false };
    curl.args(["curl", "--silent", "--fail", "--output", "/dev/null"]);
    curl.arg(format!("http://{REGISTRY}/v2/")).status().is_ok_and(|status| status.success())
}

/// The files of an image, below `tree`.
fn fill(tree: &Path, image: &Image, settings: &Settings) -> anyhow::Result<()> {
    match image.repository {
        "coredns/coredns" => {
            program(&settings.peers.join("coredns/coredns"), &tree.join("coredns"))
        }
        "pause" => {
            let made = tree.join("pause").display().to_string();
            run(&["cc", "-static", "-Os", "-s", "-o", &made, "hack/peers/pause.c"])
        }
        repository => {
            shell(tree)?;
            if repository == "library/httpd" {
                fs::create_dir(tree.join("www"))?;
                let page = format!("<h1>It works!</h1><p>{}</p>\n", image.tag);
                fs::write(tree.join("www/index.html"), page)?;
            }
            Ok(())
        }
    }
}

/// Debian's static busybox under all its names.
fn shell(tree: &Path) -> anyhow::Result<()> {
    for folder in ["bin", "etc", "tmp", "root"] {
        fs::create_dir(tree.join(folder))?;
    }
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    program(Path::new("/bin/busybox"), &tree.join("bin/busybox"))?;
    let names = Command::new("/bin/busybox").arg("--list").output().context("run busybox")?;
    for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(name))?;
    }
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    )?;
    fs::write(tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    // A static program of Debian crashes where it looks up a name (glibc's NSS): curl is for that.
    with_libraries(tree, "curl")
}

/// A program of this machine with what it is linked to, each where it is here (`ldd(1)`).
fn with_libraries(tree: &Path, name: &str) -> anyhow::Result<()> {
    let place = Path::new("/usr/bin").join(name);
    program(&place, &tree.join("bin").join(name))?;
    let linked = Command::new("ldd").arg(&place).output().context("run ldd")?;
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap_or(tree))?;
        program(Path::new(library), &copy)?;
    }
    Ok(())
}

fn program(from: &Path, to: &PathBuf) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// An OCI layout of one layer (image-spec 1.1), as skopeo names it.
fn make(scratch: &Path, tree: &Path, image: &Image) -> anyhow::Result<String> {
    let layout = scratch.join("layouts").join(image.repository).join(image.tag);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = scratch.join("layer.tar");
    let (from, to) = (tree.display().to_string(), layer.display().to_string());
    run(&[
        "tar",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "-C",
        &from,
        "-cf",
        &to,
        ".",
    ])?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer = put(&blobs, &fs::read(&layer)?)?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": image.entrypoint, "Cmd": image.command},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = put(&blobs, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.typed("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.typed("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = put(&blobs, manifest.to_string().as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest.typed(MANIFEST)]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    Ok(layout.display().to_string())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A blob of a layout.
struct Blob {
    digest: String,
    size: usize,
}

impl Blob {
    /// Its descriptor.
    fn typed(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.size})
    }
}

/// Puts a blob under its digest.
fn put(blobs: &Path, content: &[u8]) -> anyhow::Result<Blob> {
    let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(content));
    fs::write(blobs.join(&hex), content)?;
    Ok(Blob { digest: format!("sha256:{hex}"), size: content.len() })
}
