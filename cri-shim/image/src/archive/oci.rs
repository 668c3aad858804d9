//! An OCI image layout (OCI image specification, "Image Layout"): `oci-layout`, `index.json`,
//! `blobs/sha256/HEX`. Which images an index names, and how export spells one. Pure.

use crate::error::ImageError;
use crate::reference::{Reference, What};
use serde::Deserialize;
use serde_json::{Value, json};
use shim_model::digest::BlobDigest;
use std::collections::BTreeMap;

/// File that marks a layout.
pub const MARK: &str = "oci-layout";
/// File that names the images.
pub const INDEX: &str = "index.json";
/// Whole name, as containerd and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// A tag, or a whole name, as other tools write it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Media types of what export writes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One entry of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// A manifest or a further index.
    pub digest: BlobDigest,
    /// Names it is given; without a whole name, none.
    pub names: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: BlobDigest,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Where a blob lies.
pub fn blob(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The images of an index, each digest once with all its names.
pub fn images(index: &[u8]) -> Result<Vec<Named>, ImageError> {
    let index: Index = serde_json::from_slice(index)
        .map_err(|source| ImageError::Json { what: INDEX.to_owned(), source })?;
    let mut images: Vec<Named> = Vec::new();
    for entry in index.manifests {
        if entry.annotations.contains_key("vnd.docker.reference.type") {
            continue;
        }
        let full = entry.annotations.get(FULL_NAME);
        // A bare tag names nothing without a repository.
        let whole = || entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']));
        let name = full.or_else(whole).cloned();
        match images.iter_mut().find(|known| known.digest == entry.digest) {
            Some(known) => known.names.extend(name),
            None => images.push(Named { digest: entry.digest, names: name.into_iter().collect() }),
        }
    }
    Ok(images)
}

/// The mark's content.
pub fn mark() -> Vec<u8> {
    br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()
}

/// A manifest whose layers are plain archives: digest (the diff id) and size of each, bottom first.
pub fn manifest(config: (&BlobDigest, usize), layers: &[(BlobDigest, u64)]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| json!({"mediaType": LAYER, "digest": digest, "size": size}))
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.0, "size": config.1},
        "layers": layers,
    })
}

/// The index entries of one manifest: one for each name, or one without.
pub fn entries(manifest: &BlobDigest, size: usize, names: &[String]) -> Vec<Value> {
    let entry = |annotations: Value| json!({"mediaType": MANIFEST, "digest": manifest, "size": size, "annotations": annotations});
    if names.is_empty() {
        return vec![json!({"mediaType": MANIFEST, "digest": manifest, "size": size})];
    }
    names
        .iter()
        .map(|name| {
            let tag = match Reference::parse(name).map(|reference| reference.what) {
                Ok(What::Tag(tag)) => tag,
                Ok(What::Digest(_)) | Err(_) => "latest".to_owned(),
            };
            entry(json!({FULL_NAME: name, REF_NAME: tag}))
        })
        .collect()
}

/// The index of these entries.
pub fn index(entries: &[Value]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    })
}

#[cfg(test)]
mod tests {
    use super::{entries, images, index};
    use shim_model::digest::BlobDigest;

    #[test]
    fn what_export_names_import_finds() {
        let digest = BlobDigest::from_bytes([7; 32]);
        let names = ["docker.io/library/a:1".to_owned(), "docker.io/library/a:2".to_owned()];
        let text = index(&entries(&digest, 9, &names)).to_string();
        let found = images(text.as_bytes()).unwrap();
        assert_eq!((found.len(), &found[0].digest, &found[0].names[..]), (1, &digest, &names[..]));
    }

    #[test]
    fn a_bare_tag_is_no_name_and_attestations_are_no_images() {
        let digest = BlobDigest::from_bytes([7; 32]);
        let other = BlobDigest::from_bytes([8; 32]);
        let text = format!(
            r#"{{"manifests":[{{"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"latest"}}}},
               {{"digest":"{other}","annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}]}}"#
        );
        let found = images(text.as_bytes()).unwrap();
        assert!(found.len() == 1 && found[0].names.is_empty());
        assert!(images(br#"{"manifests":[{"digest":"sha256:../../x"}]}"#).is_err());
    }
}
