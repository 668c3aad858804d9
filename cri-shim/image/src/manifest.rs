//! Manifests and indexes: read them, choose the platform, list the layers. OCI and Docker schema 2;
//! schema 1 and unknown shapes are refused with a sentence. Pure.

use crate::decode::Compression;
use crate::error::ImageError;
use serde::Deserialize;
use shim_model::digest::BlobDigest;
use shim_model::limits;

/// Media types that are asked for, best first.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: BlobDigest,
    /// Its size in bytes.
    pub size: u64,
    /// For entries of an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// `vnd.docker.reference.type` marks attestations.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Operating system, architecture, variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`.
    pub variant: String,
}

/// What a manifest document turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several platforms.
    Index(Vec<Descriptor>),
    /// One image.
    Image { config: Descriptor, layers: Vec<Layer> },
}

/// One layer to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its compressed bytes.
    pub digest: BlobDigest,
    /// How many.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Reads a document; `served_as` is the type the registry gave, if any, and must agree.
pub fn parse(bytes: &[u8], what: &str, served_as: Option<&str>) -> Result<Document, ImageError> {
    if bytes.len() > limits::MANIFEST_BYTES {
        return Err(ImageError::Bound {
            what: format!("the manifest of {what}"),
            bound: limits::MANIFEST_BYTES as u64,
        });
    }
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|source| ImageError::Json { what: format!("the manifest of {what}"), source })?;
    if raw.schema_version != 2 {
        let text = format!(
            "the manifest of {what} has schema version {}; only version 2 is known",
            raw.schema_version
        );
        return Err(ImageError::Unsupported(text));
    }
    if let (Some(said), Some(served)) =
        (&raw.media_type, served_as.filter(|t| t.starts_with("application/vnd.")))
        && said != served
    {
        return Err(ImageError::Mismatch {
            what: format!("the media type of {what}, served as {served}"),
            found: said.clone(),
        });
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (None, Some(config), Some(layers)) => image(what, config, layers),
        _ => Err(ImageError::Unsupported(format!(
            "the manifest of {what} is neither an index nor an image"
        ))),
    }
}

fn image(what: &str, config: Descriptor, layers: Vec<Descriptor>) -> Result<Document, ImageError> {
    let known = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ];
    if !known.contains(&config.media_type.as_str()) {
        let text =
            format!("{what} is no container image: its config is of type {}", config.media_type);
        return Err(ImageError::Unsupported(text));
    }
    if layers.len() > limits::OVERLAY_LAYERS {
        return Err(ImageError::Bound {
            what: format!("the number of layers of {what}"),
            bound: limits::OVERLAY_LAYERS as u64,
        });
    }
    let layer = |descriptor: Descriptor| -> Result<Layer, ImageError> {
        let compression = Compression::of_media_type(&descriptor.media_type)?;
        if descriptor.size > limits::LAYER_BYTES {
            return Err(ImageError::Bound {
                what: format!("a layer of {what}"),
                bound: limits::LAYER_BYTES,
            });
        }
        Ok(Layer { digest: descriptor.digest, size: descriptor.size, compression })
    };
    Ok(Document::Image { config, layers: layers.into_iter().map(layer).collect::<Result<_, _>>()? })
}

/// The entry of an index for this machine: same system and architecture, the plain variant before
/// others, the first where several fit. One that does not say what it is for comes last: its config does,
/// and is checked.
pub fn choose<'a>(
    entries: &'a [Descriptor],
    reference: &str,
    architecture: &str,
) -> Result<&'a Descriptor, ImageError> {
    let images =
        || entries.iter().filter(|e| !e.annotations.contains_key("vnd.docker.reference.type"));
    let fits = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
    };
    let rank = |entry: &&Descriptor| match entry.platform.as_ref().map(|p| p.variant.as_str()) {
        Some("" | "v8" | "v1") | None => 0u8,
        Some(_) => 1,
    };
    let silent = || images().find(|entry| entry.platform.is_none());
    images().filter(fits).min_by_key(rank).or_else(silent).ok_or_else(|| {
        let named = |p: &Platform| format!("{}/{}{}", p.os, p.architecture, p.variant);
        let has: Vec<_> =
            images().filter_map(|e| e.platform.as_ref().map(named)).take(20).collect();
        ImageError::NoPlatform {
            reference: reference.to_owned(),
            platform: format!("linux/{architecture}"),
            has: if has.is_empty() { "none with a platform".to_owned() } else { has.join(", ") },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Document, choose, parse};

    fn index(platforms: &[(&str, &str)]) -> Vec<super::Descriptor> {
        let entries: Vec<_> = platforms.iter().enumerate().map(|(n, (arch, variant))| format!(r#"{{"mediaType":"m","digest":"sha256:{n:064x}","size":1,"platform":{{"os":"linux","architecture":"{arch}","variant":"{variant}"}}}}"#)).collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        match parse(text.as_bytes(), "x", None).unwrap() {
            Document::Index(entries) => entries,
            Document::Image { .. } => panic!("an index"),
        }
    }

    #[test]
    fn the_machines_platform_is_chosen() {
        let entries = index(&[("arm64", "v8"), ("amd64", "v3"), ("amd64", ""), ("amd64", "")]);
        assert_eq!(choose(&entries, "x", "amd64").unwrap().digest, entries[2].digest);
        assert!(choose(&entries, "x", "s390x").unwrap_err().to_string().contains("linux/arm64v8"));
        let mut silent = index(&[("arm64", "v8"), ("", ""), ("", "")]);
        silent[1].platform = None;
        silent[2].platform = None;
        assert_eq!(choose(&silent, "x", "amd64").unwrap().digest, silent[1].digest);
    }

    #[test]
    fn other_shapes_are_refused_with_a_sentence() {
        for (text, word) in [
            (r#"{"schemaVersion":1,"name":"x"}"#, "schema version 1"),
            (r#"{"schemaVersion":2}"#, "neither"),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "neither"),
            (
                &format!(
                    r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.example+json","digest":"sha256:{:064x}","size":1}},"layers":[]}}"#,
                    1
                ),
                "no container image",
            ),
        ] {
            assert!(
                parse(text.as_bytes(), "x", None).unwrap_err().to_string().contains(word),
                "{text}"
            );
        }
    }
}
