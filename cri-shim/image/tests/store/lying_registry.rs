//! Pulls from registries that misbehave (`reliability.md` §2.2): what is recovered, what is refused,
//! and that nothing of a refused image stays visible.

use crate::registry::{Layers, Lies, Ranges, Registry, basic};
use crate::support::{self, digest, image, image_for, is_root, settings, tls, two_layers};
use shim_image::auth::Auth;
use shim_image::error::ImageError;
use shim_image::pull::{Pulled, Puller};
use shim_model::kind::Kind;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A pull in this process of `app:1` at a registry; the store's folder and what came of it.
async fn pull(
    registry: &Arc<Registry>,
    auth: &Auth,
) -> (tempfile::TempDir, Result<Pulled, ImageError>) {
    tls();
    let host = registry.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::open(settings(dir.path())).unwrap();
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    let pulled = puller.pull(&format!("{host}/app:1"), auth, tell).await;
    (dir, pulled)
}

fn registry(lies: Lies) -> Arc<Registry> {
    let registry = Registry::lying(lies);
    registry.push("app", "1", &two_layers());
    Arc::new(registry)
}

fn layers(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("store/layers")).unwrap().count()
}

fn in_the_making(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count()
}

/// The pull succeeds and both layers hold what they should.
async fn succeeds(lies: Lies, auth: Auth) -> Arc<Registry> {
    let registry = registry(lies);
    let (dir, pulled) = pull(&registry, &auth).await;
    let pulled = pulled.map_err(|error| error.chain()).unwrap();
    assert_eq!((pulled.chain.len(), layers(&dir), in_the_making(&dir)), (2, 2, 0));
    let top = dir.path().join("store/layers").join(pulled.chain[1].hex()).join("fs");
    assert_eq!(std::fs::read(top.join("hello")).unwrap(), b"world");
    registry
}

/// The pull fails, this is the error, and nothing is visible.
async fn fails(lies: Lies, auth: Auth) -> ImageError {
    let registry = registry(lies);
    let (dir, pulled) = pull(&registry, &auth).await;
    let error = pulled.unwrap_err();
    assert_eq!(layers(&dir), 0, "{}", error.chain());
    // A layer beside the one that failed is given up by its thread, which then cleans up.
    while in_the_making(&dir) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    error
}

fn someone() -> Auth {
    Auth::Basic { user: "me".into(), password: "secret".into() }
}

fn known() -> (String, String) {
    ("me".into(), "secret".into())
}

#[tokio::test]
async fn root_a_token_and_a_password_open_the_door() {
    if !is_root() {
        return;
    }
    succeeds(Lies { token_for: Some(known()), ..Lies::default() }, someone()).await;
    succeeds(Lies { basic_for: Some(known()), ..Lies::default() }, someone()).await;
}

#[tokio::test]
async fn root_wrong_credentials_fail_at_once_and_are_not_told() {
    if !is_root() {
        return;
    }
    for lies in [
        Lies { token_for: Some(known()), ..Lies::default() },
        Lies { basic_for: Some(known()), ..Lies::default() },
    ] {
        let wrong = Auth::Basic { user: "me".into(), password: "hunter2".into() };
        let error = fails(lies, wrong).await;
        assert!(matches!(error, ImageError::Denied { .. }), "{error:?}");
        assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"));
    }
}

#[tokio::test]
async fn root_busy_and_broken_answers_are_asked_again() {
    if !is_root() {
        return;
    }
    for (status, wait) in
        [(429, Some("0")), (503, None), (500, Some("Thu, 01 Jan 1970 00:00:10 GMT"))]
    {
        let lies = Lies {
            first_answers: AtomicU32::new(2),
            first_status: status,
            retry_after: wait,
            ..Lies::default()
        };
        let registry = succeeds(lies, Auth::Anonymous).await;
        assert_eq!(registry.count("manifests"), 3, "{status}");
    }
}

#[tokio::test]
async fn root_a_broken_download_goes_on_where_it_was() {
    if !is_root() {
        return;
    }
    let lies = Lies { breaks: AtomicU32::new(1), break_after: 20, ..Lies::default() };
    let registry = succeeds(lies, Auth::Anonymous).await;
    let ranges: Vec<_> = registry.heard().into_iter().filter_map(|asked| asked.range).collect();
    assert_eq!(ranges, ["bytes=20-"]);
}

#[tokio::test]
async fn root_without_ranges_it_begins_again_and_skips() {
    if !is_root() {
        return;
    }
    let lies = Lies {
        breaks: AtomicU32::new(2),
        break_after: 20,
        ranges: Ranges::Ignored,
        ..Lies::default()
    };
    succeeds(lies, Auth::Anonymous).await;
}

#[tokio::test]
async fn root_a_range_that_was_not_asked_for_is_never_used() {
    if !is_root() {
        return;
    }
    let lies = Lies {
        breaks: AtomicU32::new(1),
        break_after: 20,
        ranges: Ranges::Other,
        ..Lies::default()
    };
    let registry = succeeds(lies, Auth::Anonymous).await;
    let layers = two_layers().layers;
    let asked: usize = layers.iter().map(|layer| registry.count(&digest(layer))).sum();
    assert_eq!(asked, 4, "two layers, one range that was no use, one layer again from its start");
}

#[tokio::test]
async fn root_bytes_that_are_not_what_was_named_leave_nothing() {
    if !is_root() {
        return;
    }
    let error = fails(Lies { bytes: Layers::Flipped, ..Lies::default() }, Auth::Anonymous).await;
    assert!(matches!(error, ImageError::Mismatch { .. } | ImageError::Layer { .. }), "{error:?}");
    let error = fails(Lies { bytes: Layers::Longer, ..Lies::default() }, Auth::Anonymous).await;
    assert!(matches!(error, ImageError::Mismatch { .. } | ImageError::Layer { .. }), "{error:?}");
}

#[tokio::test]
async fn root_a_redirect_is_followed_without_credentials() {
    if !is_root() {
        return;
    }
    let elsewhere = registry(Lies::default());
    let lies = Lies {
        basic_for: Some(known()),
        redirects_to: Some(format!("http://{}", elsewhere.serve().await)),
        ..Lies::default()
    };
    let first = succeeds(lies, someone()).await;
    let own = Some(basic("me", "secret"));
    assert!(first.heard().iter().any(|asked| asked.authorization == own));
    let seen = elsewhere.heard();
    assert!(seen.len() >= 2 && seen.iter().all(|asked| asked.authorization.is_none()), "{seen:?}");
}

#[tokio::test]
async fn a_registry_that_is_not_there_says_so_in_the_kubelets_word() {
    tls();
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::open(settings(dir.path())).unwrap();
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    let error = puller.pull("127.0.0.1:1/app:1", &Auth::Anonymous, tell).await.unwrap_err();
    assert!(error.chain().starts_with("RegistryUnavailable: "), "{}", error.chain());
    assert_eq!(error.kind(), Kind::TryAgain);
}

#[tokio::test]
async fn root_an_index_leads_to_this_machine_and_a_missing_name_is_not_found() {
    if !is_root() {
        return;
    }
    let here = two_layers();
    let other = image_for("s390x", &[]);
    let entry = |image: &support::Image, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": image.manifest.len(),
            "digest": digest(&image.manifest), "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let own = settings(std::path::Path::new("/nowhere")).architecture;
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&other, "s390x"), entry(&here, &own)],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let registry = Arc::new(Registry::default());
    registry.push("app", "unused", &here);
    registry.put_manifest("app", "1", "application/vnd.oci.image.index.v1+json", &index);
    let (_dir, pulled) = pull(&registry, &Auth::Anonymous).await;
    let pulled = pulled.unwrap();
    assert_eq!(pulled.id.as_str(), digest(&here.config));
    assert_eq!(
        (pulled.digest.as_str(), pulled.manifest.as_str()),
        (&*digest(&index), &*digest(&here.manifest))
    );

    let empty = Arc::new(Registry::default());
    let (_dir, missing) = pull(&empty, &Auth::Anonymous).await;
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn root_a_layer_is_fetched_once_however_many_want_it() {
    if !is_root() {
        return;
    }
    tls();
    let registry = registry(Lies::default());
    registry.push("app", "2", &two_layers());
    let host = registry.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let puller = Puller::open(settings(dir.path())).unwrap();
    let name = |tag: &str| format!("{host}/app:{tag}");
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    let (one, two) = (name("1"), name("2"));
    let (one, two) = tokio::join!(
        puller.pull(&one, &Auth::Anonymous, tell.clone()),
        puller.pull(&two, &Auth::Anonymous, tell),
    );
    assert_eq!(one.unwrap().chain, two.unwrap().chain);
    let blob = |layer: &[u8]| registry.count(&digest(layer));
    assert_eq!(two_layers().layers.iter().map(|layer| blob(layer)).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn root_mirrors_are_asked_first_and_the_host_when_they_fail() {
    if !is_root() {
        return;
    }
    tls();
    let (empty, own) = (Arc::new(Registry::default()), registry(Lies::default()));
    let (mirror, host) = (empty.serve().await, own.serve().await);
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let hosts = settings.registry_config.join("registry.test");
    std::fs::create_dir_all(&hosts).unwrap();
    let text = format!(
        "server = \"http://{host}\"\n[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    let puller = Puller::open(settings).unwrap();
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    let pulled = puller.pull("registry.test/app:1", &Auth::Anonymous, tell).await;
    assert_eq!(pulled.map_err(|error| error.chain()).unwrap().chain.len(), 2);
    assert!(empty.count("manifests/1") == 1 && own.count("manifests/1") == 1);
}

#[tokio::test]
async fn root_a_config_that_lies_about_its_layers_is_refused() {
    if !is_root() {
        return;
    }
    let mut image = image(&[(support::Form::Plain, support::archive(&[("a", b"1")]))]);
    let lie = String::from_utf8(image.config.clone()).unwrap();
    let real = digest(&image.layers[0]);
    image.config = lie.replace(&real, &digest(b"other")).into_bytes();
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let mut manifest = manifest;
    manifest["config"]["digest"] = digest(&image.config).into();
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    let registry = Arc::new(Registry::default());
    registry.push("app", "1", &image);
    let (dir, pulled) = pull(&registry, &Auth::Anonymous).await;
    assert!(matches!(pulled.unwrap_err(), ImageError::Mismatch { .. }));
    assert_eq!(layers(&dir), 0);
}

#[tokio::test]
async fn root_more_pulls_than_have_a_turn_wait() {
    if !is_root() {
        return;
    }
    tls();
    let lies = Lies { stalls: AtomicU32::new(u32::MAX), stall_after: 1, ..Lies::default() };
    let registry = Arc::new(Registry::lying(lies));
    let most = shim_model::limits::PULLS;
    for number in 0..most + 5 {
        let name = format!("file-{number}");
        let layer = support::archive(&[(name.as_str(), b"x")]);
        registry.push("app", &number.to_string(), &image(&[(support::Form::Plain, layer)]));
    }
    let host = registry.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let puller = Arc::new(Puller::open(settings(dir.path())).unwrap());
    let pulls: Vec<_> = (0..most + 5)
        .map(|number| {
            let (puller, name) = (Arc::clone(&puller), format!("{host}/app:{number}"));
            let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move { puller.pull(&name, &Auth::Anonymous, tell).await.map(drop) })
        })
        .collect();
    while registry.count("/blobs/") < most * 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(registry.count("/manifests/"), most);
    // One that leaves lets the next one in.
    pulls[0].abort();
    while registry.count("/manifests/") == most {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    pulls.iter().for_each(tokio::task::JoinHandle::abort);
}
