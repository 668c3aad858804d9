//! Import and export both ways: what went in comes out with the same id, foreign tools read what is
//! exported, and an archive that lies is refused.

use crate::real_registry::open;
use crate::support::{Form, archive, digest, image, is_root, settings, skipped, two_layers};
use shim_image::archive::export::To;
use shim_image::auth::Auth;
use shim_image::images::Images;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A store that pulled the two-layer image, under two tags.
async fn pulled(root: &Path) -> Images {
    let registry = Arc::new(crate::registry::Registry::default());
    registry.push("team/app", "1", &two_layers());
    let host = registry.serve().await;
    let (images, _pids) = open(root);
    images.pull(&format!("{host}/team/app:1"), &Auth::Anonymous, None).await.unwrap();
    images.tag(&digest(&two_layers().config), "app:2").await.unwrap();
    images
}

/// Exports everything in one form.
async fn exported(images: &Images, to: To) {
    images.export(vec![digest(&two_layers().config)], to).await.unwrap();
}

/// Imports into a fresh store; the image has its old id, its names, and the right files.
async fn comes_back(from: PathBuf, tags: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (images, _pids) = open(dir.path());
    let found = images.import(from, None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.as_str(), found[0].tags.len()), (&*digest(&two_layers().config), tags));
    assert!(found[0].tags.contains("docker.io/library/app:2"), "{:?}", found[0].tags);
    let top = &images.layer_folders(&found[0])[0];
    assert_eq!(std::fs::read(top.join("hello")).unwrap(), b"world");
}

#[tokio::test]
async fn root_every_form_comes_back_with_the_same_id() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = pulled(dir.path()).await;
    let at = |name: &str| dir.path().join(name);
    exported(&images, To::OciLayout(at("layout"))).await;
    exported(&images, To::OciArchive(File::create(at("oci.tar")).unwrap())).await;
    exported(&images, To::DockerArchive(File::create(at("docker.tar")).unwrap())).await;
    for from in ["layout", "oci.tar", "docker.tar"] {
        comes_back(at(from), 2).await;
    }
    // A second export to the same folder would mix two layouts.
    let again = images.export(vec!["app:2".into()], To::OciLayout(at("layout"))).await;
    assert!(again.is_err());
}

#[tokio::test]
async fn root_skopeo_reads_what_is_exported_and_writes_what_is_imported() {
    if !is_root() {
        return;
    }
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skipped("skopeo is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let images = pulled(dir.path()).await;
    let at = |name: &str| dir.path().join(name).display().to_string();
    exported(&images, To::DockerArchive(File::create(at("docker.tar")).unwrap())).await;
    images.export(vec!["app:2".into()], To::OciLayout(at("layout").into())).await.unwrap();
    let copy = |from: String, to: String| {
        let run = Command::new("skopeo").args(["copy", "--insecure-policy", &from, &to]).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{from} -> {to}: {}", String::from_utf8_lossy(&run.stderr));
    };
    copy(format!("docker-archive:{}:app:2", at("docker.tar")), format!("oci:{}", at("one")));
    copy(format!("oci:{}:2", at("layout")), format!("docker-archive:{}:app:2", at("saved.tar")));
    copy(format!("oci:{}:2", at("layout")), format!("oci-archive:{}:app:2", at("oci.tar")));
    for from in ["saved.tar", "oci.tar"] {
        comes_back(at(from).into(), 1).await;
    }
}

#[tokio::test]
async fn root_an_exported_layer_is_the_very_archive_that_came() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = pulled(dir.path()).await;
    exported(&images, To::OciLayout(dir.path().join("layout"))).await;
    let noise: Vec<u8> = two_layers().layers[0].clone();
    let mut plain = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(noise.as_slice()), &mut plain).unwrap();
    let name = digest(&plain).replace("sha256:", "blobs/sha256/");
    assert_eq!(std::fs::read(dir.path().join("layout").join(name)).unwrap(), plain);
}

#[tokio::test]
async fn root_a_layer_that_lost_data_cannot_be_exported() {
    if !is_root() {
        return;
    }
    let twice = image(&[(Form::Plain, archive(&[("a", b"first"), ("a", b"second")]))]);
    let registry = Arc::new(crate::registry::Registry::default());
    registry.push("app", "1", &twice);
    let name = format!("{}/app:1", registry.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let (images, _pids) = open(dir.path());
    images.pull(&name, &Auth::Anonymous, None).await.unwrap();
    let told = images.export(vec![name], To::OciLayout(dir.path().join("layout"))).await;
    assert!(told.unwrap_err().to_string().contains("named a file twice"));
    assert!(!dir.path().join("layout").exists(), "refused before the first byte");
}

#[tokio::test]
async fn root_an_archive_that_lies_leaves_nothing() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = pulled(dir.path()).await;
    let good = dir.path().join("good.tar");
    exported(&images, To::DockerArchive(File::create(&good).unwrap())).await;
    let bytes = std::fs::read(&good).unwrap();
    // Somewhere in the data of the large file of the first layer.
    let at = bytes.windows(3).position(|w| w == b"big").unwrap() + 4_096;
    let mut bad = bytes.clone();
    bad[at] ^= 1;
    let fresh = tempfile::tempdir().unwrap();
    let (empty, _pids) = open(fresh.path());
    for (content, name) in [(bad.as_slice(), "flipped"), (&bytes[..bytes.len() / 2], "short")] {
        let path = fresh.path().join(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        assert!(empty.import(path, None).await.is_err(), "{name}");
    }
    assert!(empty.import(settings(fresh.path()).root, None).await.is_err(), "no layout at all");
    let layers = std::fs::read_dir(settings(fresh.path()).root.join("layers")).unwrap();
    assert_eq!((empty.list().len(), layers.count()), (0, 0));
}
