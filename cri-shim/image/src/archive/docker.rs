//! The archive of `docker save` (Docker image specification v1.2, "Combined Image JSON + Filesystem
//! Changeset Format"): `manifest.json` names configs, layers and tags. Pure.

use crate::error::ImageError;
use crate::reference::{Reference, What};
use serde::{Deserialize, Serialize};

/// File that names the images.
pub const MANIFEST: &str = "manifest.json";

/// One image of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    /// File of the config.
    pub config: String,
    /// `nginx:1.27`; may be null.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Files of the layers, bottom first.
    pub layers: Vec<String>,
}

/// The images of a `manifest.json`.
pub fn images(manifest: &[u8]) -> Result<Vec<Saved>, ImageError> {
    serde_json::from_slice(manifest)
        .map_err(|source| ImageError::Json { what: MANIFEST.to_owned(), source })
}

/// A canonical tag as Docker's own archives spell it: `nginx:1.27`, `user/app:2`, else the whole name.
pub fn familiar(name: &str) -> String {
    let Ok(Reference { host, path, what: What::Tag(tag) }) = Reference::parse(name) else {
        return name.to_owned();
    };
    match host.as_str() {
        "docker.io" => format!("{}:{tag}", path.strip_prefix("library/").unwrap_or(&path)),
        host => format!("{host}/{path}:{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Saved, familiar, images};

    #[test]
    fn tags_may_be_missing() {
        let text = br#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar"]}]"#;
        let saved =
            Saved { config: "c.json".into(), repo_tags: None, layers: vec!["a/layer.tar".into()] };
        assert_eq!(images(text).unwrap(), [saved]);
        assert!(images(br#"{"Config":"c.json"}"#).is_err());
    }

    #[test]
    fn hub_names_are_short_and_others_whole() {
        assert_eq!(familiar("docker.io/library/nginx:1"), "nginx:1");
        assert_eq!(familiar("docker.io/user/app:2"), "user/app:2");
        assert_eq!(familiar("r.io/app:2"), "r.io/app:2");
    }
}
