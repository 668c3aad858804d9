//! The storage of a registry, written as Debian's docker-registry reads it (distribution's file system
//! driver, "docker/registry/v2"), so that no push is needed; and that registry's settings. Owns one
//! folder. What is in the images is `images.rs`'s.

use crate::runtime::REGISTRY;
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The folder of blobs and names.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

/// An image to be stored.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    pub(crate) layers: Vec<Blob>,
    pub(crate) command: &'a [&'a str],
}

/// A finished layer.
#[derive(Debug)]
pub(crate) struct Blob {
    digest: String,
    size: u64,
    /// Digest of what was compressed.
    diff: String,
}

/// A layer in the making.
pub(crate) struct Layer<'a> {
    store: &'a Store,
    tar: tar::Builder<Counted<GzEncoder<Counted<BufWriter<File>>>>>,
    beside: PathBuf,
}

impl Store {
    /// Opens the folder, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The registry's settings: where it listens, what it serves, and that it says nothing.
    pub(crate) fn settings(&self) -> String {
        format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, cache: {{blobdescriptor: inmemory}}}}\n\
             http: {{addr: {REGISTRY}}}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n",
            self.folder.display()
        )
    }

    /// Whether the image is there. Its name is written last.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tag(name).join("current/link").exists()
    }

    /// A layer to be filled.
    pub(crate) fn layer(&self) -> Result<Layer<'_>> {
        let beside = self.folder.join("layer.part");
        let file = File::create(&beside).with_context(|| format!("make {}", beside.display()))?;
        let packed = Counted::new(BufWriter::new(file));
        let plain = Counted::new(GzEncoder::new(packed, Compression::default()));
        Ok(Layer { store: self, tar: tar::Builder::new(plain), beside })
    }

    /// Stores an image: blobs first, its name last.
    pub(crate) fn put(&self, image: &Image<'_>) -> Result<()> {
        let diffs: Vec<&str> = image.layers.iter().map(|layer| layer.diff.as_str()).collect();
        let config = serde_json::json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": image.command},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = self.blob(config.to_string().as_bytes())?;
        let layers = image.layers.iter().map(|layer| {
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.digest, layer.size)
        });
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config.digest, config.size),
            "layers": layers.collect::<Vec<_>>(),
        });
        let manifest = self.blob(manifest.to_string().as_bytes())?;
        let repository = self.repository(image.name);
        for blob in image.layers.iter().chain([&config]) {
            link(&repository.join("_layers").join(path(&blob.digest)), &blob.digest)?;
        }
        let digest = &manifest.digest;
        link(&repository.join("_manifests/revisions").join(path(digest)), digest)?;
        link(&self.tag(image.name).join("index").join(path(digest)), digest)?;
        link(&self.tag(image.name).join("current"), digest)
    }

    fn blob(&self, bytes: &[u8]) -> Result<Blob> {
        let beside = self.folder.join("blob.part");
        fs::write(&beside, bytes).with_context(|| format!("write {}", beside.display()))?;
        let digest = hex(Sha256::digest(bytes).as_slice());
        let size = u64::try_from(bytes.len()).context("a small blob")?;
        self.keep(&beside, Blob { diff: digest.clone(), digest, size })
    }

    fn keep(&self, beside: &Path, blob: Blob) -> Result<Blob> {
        let digits = blob.digest.trim_start_matches("sha256:");
        let first = digits.get(..2).context("a digest")?;
        let folder = self.root().join("blobs/sha256").join(first).join(digits);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        fs::rename(beside, folder.join("data")).context("keep a blob")?;
        Ok(blob)
    }

    fn root(&self) -> PathBuf {
        self.folder.join("docker/registry/v2")
    }

    fn repository(&self, name: &str) -> PathBuf {
        let repository = name.trim_start_matches(REGISTRY).trim_start_matches('/');
        let repository = repository.split(':').next().unwrap_or_default();
        self.root().join("repositories").join(repository)
    }

    fn tag(&self, name: &str) -> PathBuf {
        let tag = name.rsplit(':').next().unwrap_or_default();
        self.repository(name).join("_manifests/tags").join(tag)
    }
}

impl Layer<'_> {
    /// Adds a folder.
    pub(crate) fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(&format!("{name}/"), tar::EntryType::Directory, (&[], 0o755))
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.entry(name, tar::EntryType::Regular, (content, mode))
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        self.tar.append_link(&mut header, name, target).context("add a link")
    }

    /// The whole layer.
    pub(crate) fn finish(self) -> Result<Blob> {
        let plain = self.tar.into_inner().context("end a layer")?;
        let diff = hex(plain.sum.finalize().as_slice());
        let mut packed = plain.inner.finish().context("end a compressed layer")?;
        packed.flush().context("write a layer")?;
        let digest = hex(packed.sum.finalize().as_slice());
        self.store.keep(&self.beside, Blob { digest, size: packed.size, diff })
    }

    fn entry(&mut self, name: &str, kind: tar::EntryType, what: (&[u8], u32)) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(what.1);
        header.set_size(u64::try_from(what.0.len()).context("a file of a layer")?);
        self.tar.append_data(&mut header, name, what.0).context("add to a layer")
    }
}

/// Digests and counts what goes through it.
struct Counted<W> {
    inner: W,
    sum: Sha256,
    size: u64,
}

impl<W> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, sum: Sha256::new(), size: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let done = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..done).unwrap_or_default());
        self.size += u64::try_from(done).unwrap_or_default();
        Ok(done)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn link(folder: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(folder.join("link"), digest).context("write a link of the registry")
}

/// `sha256:HEX` → `sha256/HEX`.
fn path(digest: &str) -> String {
    digest.replace(':', "/")
}

fn hex(sum: &[u8]) -> String {
    sum.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn descriptor(kind: &str, digest: &str, size: u64) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": digest, "size": size})
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_there_once_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let name = "127.0.0.1:5000/bench/one:1";
        let mut layer = store.layer().unwrap();
        layer.folder("bin").unwrap();
        layer.file("bin/program", &[7; 5000], 0o755).unwrap();
        layer.link("bin/sh", "program").unwrap();
        let blob = layer.finish().unwrap();
        let digits = blob.digest.trim_start_matches("sha256:").to_owned();
        let data = store.root().join(format!("blobs/sha256/{}/{digits}/data", &digits[..2]));
        let packed = fs::read(data).unwrap();
        assert_eq!(hex(Sha256::digest(&packed).as_slice()), blob.digest);
        assert_eq!(u64::try_from(packed.len()).unwrap(), blob.size);
        let mut plain = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain).unwrap();
        assert_eq!(hex(Sha256::digest(&plain).as_slice()), blob.diff);
        let mut archive = tar::Archive::new(&plain[..]);
        assert_eq!(archive.entries().unwrap().count(), 3);
        assert!(!store.has(name));
        store.put(&Image { name, layers: vec![blob], command: &["/bin/program"] }).unwrap();
        assert!(store.has(name));
        let current = store.tag(name).join("current/link");
        assert!(fs::read_to_string(current).unwrap().starts_with("sha256:"));
    }
}
