//! What the image tests share: images made on the fly, a registry that serves them from memory and
//! lies where a test tells it to, and a store below a folder that goes away.

use sha2::{Digest, Sha256};
use shim_image::config::ImageConfig;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// `sha256:HEX` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

/// A file of an archive: name and content. A name that ends with a slash is a folder.
pub(crate) type Entry<'a> = (&'a str, &'a [u8]);

/// A plain tar archive.
pub(crate) fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        let is_folder = name.ends_with('/');
        header.set_entry_type(if is_folder {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if is_folder { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// How a test's layer is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl Form {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub(crate) fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }
}

/// An image as its blobs.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Compressed layers, bottom first.
    pub(crate) layers: Vec<Vec<u8>>,
}

/// An image for `architecture` of these archives.
pub(crate) fn image_for(architecture: &str, archives: &[(Form, Vec<u8>)]) -> Image {
    let diff_ids: Vec<_> = archives.iter().map(|(_, bytes)| digest(bytes)).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let layers: Vec<_> = archives.iter().map(|(form, bytes)| form.pack(bytes)).collect();
    let descriptors: Vec<_> = archives
        .iter()
        .zip(&layers)
        .map(|((form, _), bytes)| {
            serde_json::json!({"mediaType": form.media_type(), "digest": digest(bytes), "size": bytes.len()})
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(&config), "size": config.len()},
        "layers": descriptors,
    });
    Image { manifest: serde_json::to_vec(&manifest).unwrap(), config, layers }
}

/// An image for this machine.
pub(crate) fn image(archives: &[(Form, Vec<u8>)]) -> Image {
    image_for(&ImageConfig::below("/nowhere").architecture, archives)
}

/// Some two layers that many tests pull: the second hides a file of the first.
pub(crate) fn two_layers() -> Image {
    let noise: Vec<u8> =
        (0..400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    image(&[
        (Form::Gzip, archive(&[("etc/", b""), ("etc/old", b"1"), ("big", &noise)])),
        (Form::Zstd, archive(&[("etc/.wh.old", b""), ("hello", b"world")])),
    ])
}

/// Writes an image as an OCI layout (image specification, "Image Layout") with one tag, for other tools.
pub(crate) fn layout(at: &std::path::Path, image: &Image, tag: &str) {
    let blobs = at.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for blob in image.layers.iter().chain([&image.manifest, &image.config]) {
        std::fs::write(blobs.join(digest(blob).replace("sha256:", "")), blob).unwrap();
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&image.manifest), "size": image.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }],
    });
    std::fs::write(at.join("index.json"), index.to_string()).unwrap();
    std::fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Settings of a store below a folder, without any registry configuration.
pub(crate) fn settings(root: &std::path::Path) -> ImageConfig {
    ImageConfig {
        registry_config: root.join("certs.d"),
        auth_file: root.join("auth.json"),
        ..ImageConfig::below(root.join("store"))
    }
}

/// Unpacking gives files owners, which only root may do.
pub(crate) fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        skipped("unpacking owners and devices needs root");
    }
    root
}

/// The one TLS provider of a process; every test may ask for it.
pub(crate) fn tls() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Says aloud that a test did not run.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
