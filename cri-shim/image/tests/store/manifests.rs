//! Manifests, indexes and configs as strangers write them (`reliability.md` §2.1, I15 to I18): Docker's
//! types and OCI's, what is refused with a sentence, and that a refusal leaves no layer.

use crate::registry::Registry;
use crate::support::{
    Form, Image, archive, digest, image, image_for, is_root, settings, tls, two_layers,
};
use serde_json::{Value, json};
use shim_image::auth::Auth;
use shim_image::error::ImageError;
use shim_image::pull::{Pulled, Puller};
use std::sync::Arc;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Pulls `app:1`; a failure must leave no layer behind.
async fn pulled(registry: Registry) -> Result<Pulled, ImageError> {
    tls();
    let host = Arc::new(registry).serve().await;
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::open(settings(dir.path())).unwrap();
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    let pulled = puller.pull(&format!("{host}/app:1"), &Auth::Anonymous, tell).await;
    let layers = std::fs::read_dir(dir.path().join("store/layers")).unwrap().count();
    assert_eq!(layers, pulled.as_ref().map_or(0, |pulled| pulled.chain.len()));
    pulled
}

/// Pulls the two-layer image after a change of its manifest, which is served as `kind`.
async fn changed(kind: &str, change: impl FnOnce(&mut Value)) -> Result<Pulled, ImageError> {
    let image = two_layers();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    let registry = Registry::default();
    registry.push("app", "unused", &image);
    registry.put_manifest("app", "1", kind, &serde_json::to_vec(&manifest).unwrap());
    pulled(registry).await
}

/// As [`changed`], with a change of the config.
async fn configured(change: impl FnOnce(&mut Value)) -> Result<Pulled, ImageError> {
    let mut image = two_layers();
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    change(&mut config);
    image.config = serde_json::to_vec(&config).unwrap();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"] = digest(&image.config).into();
    manifest["config"]["size"] = image.config.len().into();
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let registry = Registry::default();
    registry.push("app", "1", &image);
    pulled(registry).await
}

fn entry(image: &Image, kind: &str, platform: &Value) -> Value {
    json!({"mediaType": kind, "size": image.manifest.len(), "digest": digest(&image.manifest), "platform": platform})
}

/// Pulls by an index of these entries, whose images are all there.
async fn indexed(images: &[&Image], kind: &str, entries: Value) -> Result<Pulled, ImageError> {
    let registry = Registry::default();
    for image in images {
        registry.push("app", "unused", image);
    }
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
    registry.put_manifest("app", "1", kind, &serde_json::to_vec(&index).unwrap());
    pulled(registry).await
}

fn own() -> String {
    settings(std::path::Path::new("/nowhere")).architecture
}

fn of_docker(manifest: &mut Value) {
    manifest["mediaType"] = DOCKER.into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    let layer = "application/vnd.docker.image.rootfs.diff.tar";
    manifest["layers"][0]["mediaType"] = format!("{layer}.gzip").into();
    manifest["layers"][1]["mediaType"] = format!("{layer}.zstd").into();
}

#[tokio::test]
async fn root_dockers_own_types_are_pulled() {
    if !is_root() {
        return;
    }
    assert_eq!(changed(DOCKER, of_docker).await.unwrap().chain.len(), 2);
    let mut here = two_layers();
    let mut manifest = serde_json::from_slice(&here.manifest).unwrap();
    of_docker(&mut manifest);
    here.manifest = serde_json::to_vec(&manifest).unwrap();
    let other = image_for("s390x", &[]);
    // A list is not told apart from a manifest by its name, and what it names is served as something.
    let entries = json!([
        entry(&other, DOCKER, &json!({"os": "linux", "architecture": "s390x"})),
        entry(&here, DOCKER, &json!({"os": "linux", "architecture": own()})),
    ]);
    let registry = Registry::default();
    registry.push("app", "unused", &other);
    registry.push("app", "unused", &here);
    registry.put_manifest("app", "unused", DOCKER, &here.manifest);
    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": entries});
    registry.put_manifest("app", "1", LIST, &serde_json::to_vec(&list).unwrap());
    let pulled = pulled(registry).await.unwrap();
    assert_eq!(pulled.manifest.as_str(), digest(&here.manifest));
}

#[tokio::test]
async fn root_an_index_may_keep_silent_about_platforms_and_attest() {
    if !is_root() {
        return;
    }
    let (here, other) = (two_layers(), image_for("s390x", &[]));
    let kind = "application/vnd.oci.image.index.v1+json";
    let silent =
        json!([{"mediaType": OCI, "size": here.manifest.len(), "digest": digest(&here.manifest)}]);
    assert_eq!(indexed(&[&here], kind, silent).await.unwrap().chain.len(), 2);
    // Of two that fit the first, and no attestation, whatever it says it is for.
    let mut attests = entry(&other, OCI, &json!({"os": "linux", "architecture": own()}));
    attests["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let entries = json!([
        attests,
        entry(&here, OCI, &json!({"os": "linux", "architecture": own(), "variant": ""})),
        entry(&other, OCI, &json!({"os": "linux", "architecture": own()})),
    ]);
    let pulled = indexed(&[&here, &other], kind, entries).await.unwrap();
    assert_eq!(pulled.manifest.as_str(), digest(&here.manifest));
    let entries = json!([entry(&other, OCI, &json!({"os": "linux", "architecture": "s390x"}))]);
    let none = indexed(&[&other], kind, entries).await.unwrap_err();
    assert!(none.to_string().contains("it has linux/s390x"), "{none}");
    let entries = json!([{"mediaType": OCI, "size": 1, "digest": digest(&other.manifest)}]);
    let none = indexed(&[&other], kind, entries).await.unwrap_err();
    assert!(matches!(none, ImageError::NoPlatform { .. }), "{none}");
}

#[tokio::test]
async fn root_indexes_in_indexes_have_an_end() {
    if !is_root() {
        return;
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    for (depth, good) in [(2, true), (3, false)] {
        let registry = Registry::default();
        let image = two_layers();
        registry.push("app", "unused", &image);
        let mut inner = (OCI, image.manifest);
        for _ in 0..=depth {
            let entry =
                json!({"mediaType": inner.0, "size": inner.1.len(), "digest": digest(&inner.1)});
            let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]});
            inner = (kind, serde_json::to_vec(&index).unwrap());
            registry.put_manifest("app", "unused", kind, &inner.1);
        }
        registry.put_manifest("app", "1", kind, &inner.1);
        let told = pulled(registry).await;
        assert_eq!(told.is_ok(), good, "{depth}: {told:?}");
        assert!(good || matches!(told, Err(ImageError::Bound { .. })));
    }
}

#[tokio::test]
async fn root_what_is_no_image_is_refused_in_a_sentence() {
    if !is_root() {
        return;
    }
    let layer = |kind: &'static str| move |m: &mut Value| m["layers"][0]["mediaType"] = kind.into();
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let outside = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let sealed = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    for (kind, word) in [(foreign, "outside"), (outside, "outside"), (sealed, "is not known")] {
        let told = changed(OCI, layer(kind)).await.unwrap_err();
        assert!(matches!(&told, ImageError::Unsupported(text) if text.contains(word)), "{told:?}");
    }
    let other =
        changed(OCI, |m| m["config"]["mediaType"] = "application/vnd.wasm.config.v0".into());
    assert!(other.await.unwrap_err().to_string().contains("no container image"));
    let first = changed(OCI, |m| m["schemaVersion"] = 1.into()).await.unwrap_err();
    assert!(first.to_string().contains("schema version 1"), "{first}");
    let both = changed(OCI, |m| m["manifests"] = json!([])).await.unwrap_err();
    assert!(both.to_string().contains("neither an index nor an image"), "{both}");
    let lie = changed(DOCKER, |_| ()).await.unwrap_err();
    assert!(matches!(lie, ImageError::Mismatch { .. }), "{lie:?}");
    let many = changed(OCI, |m| m["layers"] = vec![m["layers"][0].clone(); 513].into()).await;
    assert!(matches!(many, Err(ImageError::Bound { .. })), "{many:?}");
    let large = changed(OCI, |m| m["annotations"] = json!({"a": "x".repeat(4 << 20)})).await;
    assert!(matches!(large, Err(ImageError::Bound { .. })), "{large:?}");
}

#[tokio::test]
async fn root_sizes_and_digests_that_are_not_right_are_refused_at_once() {
    if !is_root() {
        return;
    }
    for off in [-1i64, 1] {
        let told = changed(OCI, |m| {
            let size = m["layers"][0]["size"].as_i64().unwrap();
            m["layers"][0]["size"] = (size + off).into();
        });
        assert!(matches!(told.await, Err(ImageError::Mismatch { .. })), "{off}");
    }
    for size in [json!(-1), json!("1"), json!(1e30)] {
        let told = changed(OCI, |m| m["layers"][0]["size"] = size.clone()).await;
        assert!(matches!(told, Err(ImageError::Json { .. })), "{size}: {told:?}");
    }
    let huge = changed(OCI, |m| m["layers"][0]["size"] = (1u64 << 40).into()).await;
    assert!(matches!(huge, Err(ImageError::Bound { .. })), "{huge:?}");
    let upper = format!("sha256:{}", "A".repeat(64));
    let long = format!("sha512:{}", "a".repeat(128));
    for bad in ["sha256:../../x", "sha256:", "foo:bar", upper.as_str(), long.as_str()] {
        let told = changed(OCI, |m| m["layers"][0]["digest"] = bad.into()).await;
        assert!(matches!(told, Err(ImageError::Json { .. })), "{bad}: {told:?}");
    }
}

#[tokio::test]
async fn root_a_config_must_fit_its_manifest_and_this_machine() {
    if !is_root() {
        return;
    }
    let other = configured(|config| config["architecture"] = "s390x".into()).await;
    assert!(matches!(other, Err(ImageError::NoPlatform { .. })), "{other:?}");
    let other = configured(|config| config["os"] = "windows".into()).await;
    assert!(matches!(other, Err(ImageError::NoPlatform { .. })), "{other:?}");
    let fewer = configured(|config| {
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    });
    assert!(matches!(fewer.await, Err(ImageError::Mismatch { .. })));
    let large = configured(|config| config["history"] = json!(["x".repeat(9 << 20)])).await;
    assert!(matches!(large, Err(ImageError::Bound { .. })), "{large:?}");
}

#[tokio::test]
async fn root_one_layer_twice_and_no_layer_are_legal() {
    if !is_root() {
        return;
    }
    let layer = (Form::Gzip, archive(&[("a", b"1")]));
    for layers in [vec![layer.clone(), layer], Vec::new()] {
        let registry = Registry::default();
        registry.push("app", "1", &image(&layers));
        assert_eq!(pulled(registry).await.unwrap().chain.len(), layers.len());
    }
}
