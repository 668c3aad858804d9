//! Images made on the fly: an OCI archive with Debian's static busybox, its applets as links, and the
//! users that tests ask for. Nothing is downloaded and nothing of the machine but that one program gets
//! in.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The name that the image has after its import.
pub const NAME: &str = "localhost/busybox:test";

/// Debian's package `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// The kind of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n";

/// Why no image can be made here.
pub fn missing() -> Option<String> {
    let listed = Command::new(BUSYBOX).arg("--list").output();
    let usable = listed.is_ok_and(|done| done.status.success());
    (!usable).then(|| format!("{BUSYBOX} of the package busybox-static is not there"))
}

/// An image, as the blobs that it is made of.
#[derive(Debug)]
pub struct Image {
    /// Layers as they travel, the one with busybox first.
    pub layers: Vec<Vec<u8>>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
}

impl Image {
    /// The test image. `env` are variables of its configuration, so that two images differ.
    pub fn new(env: &[&str]) -> Self {
        Self::with(&serde_json::json!({"Env": env, "Cmd": ["sh"]}))
    }

    /// Likewise, with this as the `config` of its configuration.
    pub fn with(config: &serde_json::Value) -> Self {
        Self::of(vec![layer()], config)
    }

    /// The test image with a layer more for each of these sizes; their content cannot be compressed.
    pub fn with_layers(sizes: &[usize]) -> Self {
        let more = sizes.iter().enumerate().map(|(number, size)| {
            let mut tar = tar::Builder::new(Vec::new());
            file(&mut tar, &format!("noise-{number}"), &noise(number, *size), 0o644);
            tar.into_inner().unwrap()
        });
        let config = serde_json::json!({"Env": ["IMAGE=layers"], "Cmd": ["sh"]});
        Self::of(std::iter::once(layer()).chain(more).collect(), &config)
    }

    fn of(layers: Vec<Vec<u8>>, config: &serde_json::Value) -> Self {
        let diffs: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({
            "architecture": architecture(), "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = config.to_string().into_bytes();
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let described: Vec<_> = layers.iter().map(|layer| descriptor(kind, layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": described,
        });
        let manifest = manifest.to_string().into_bytes();
        Self { layers, config, manifest }
    }

    /// Its id: the digest of its configuration.
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// Every blob.
    pub fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }

    /// Writes it as an OCI archive.
    pub fn write(&self, path: &Path, name: &str) {
        let mut entry = descriptor(MANIFEST, &self.manifest);
        entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let mut archive = tar::Builder::new(File::create(path).unwrap());
        file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
        file(&mut archive, "index.json", index.as_bytes(), 0o644);
        for blob in self.blobs() {
            let name = format!("blobs/{}", digest(blob).replace(':', "/"));
            file(&mut archive, &name, blob, 0o644);
        }
        archive.finish().unwrap();
    }
}

/// Writes the test image as an OCI archive.
pub fn write(path: &Path, name: &str, env: &[&str]) {
    Image::new(env).write(path, name);
}

/// Bytes without a pattern that a compression would find: a xorshift generator's.
fn noise(seed: usize, size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (seed as u64);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..size.div_ceil(8)).flat_map(|_| next()).take(size).collect()
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("home", 0o755),
        ("www", 0o755),
    ] {
        folder(&mut tar, name, mode);
    }
    file(&mut tar, "bin/busybox", &std::fs::read(BUSYBOX).unwrap(), 0o755);
    file(&mut tar, "etc/passwd", PASSWD.as_bytes(), 0o644);
    file(&mut tar, "etc/group", GROUP.as_bytes(), 0o644);
    file(&mut tar, "www/index.html", b"a page of a container\n", 0o644);
    file(&mut tar, "etc/no-program", b"text\n", 0o644);
    let listed = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    let names = String::from_utf8(listed).unwrap();
    for applet in names.lines().filter(|name| *name != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

fn folder(tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    tar.append_data(&mut header, format!("{name}/"), std::io::empty()).unwrap();
}

fn file(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
}

/// The digest of a blob.
pub fn digest(content: &[u8]) -> String {
    let sum = Sha256::digest(content);
    sum.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn descriptor(kind: &str, content: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": digest(content), "size": content.len()})
}

/// This machine, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
