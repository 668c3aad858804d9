//! Which endpoint of a registry is asked for what, and what it is told: order, capabilities, paths,
//! headers, credentials, proxies; where a registry sends us and where we do not go.

use crate::registry::{Lies, Registry, basic};
use crate::support::{is_root, settings, tls, two_layers};
use shim_image::auth::Auth;
use shim_image::config::ImageConfig;
use shim_image::error::ImageError;
use shim_image::pull::{Pulled, Puller};
use shim_model::kind::Kind;
use std::path::Path;
use std::sync::Arc;

fn registry(lies: Lies) -> Arc<Registry> {
    let registry = Registry::lying(lies);
    registry.push("app", "1", &two_layers());
    Arc::new(registry)
}

/// Settings with this `hosts.toml` for `registry.test`.
fn configured(dir: &Path, text: &str) -> ImageConfig {
    let settings = settings(dir);
    let hosts = settings.registry_config.join("registry.test");
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    settings
}

async fn pull(settings: ImageConfig, name: &str, auth: &Auth) -> Result<Pulled, ImageError> {
    tls();
    let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
    Puller::open(settings)?.pull(name, auth, tell).await
}

/// Pulls `registry.test/app:1` by this `hosts.toml`.
async fn by(text: &str, auth: &Auth) -> Result<Pulled, ImageError> {
    let dir = tempfile::tempdir().unwrap();
    pull(configured(dir.path(), text), "registry.test/app:1", auth).await
}

fn someone() -> Auth {
    Auth::Basic { user: "me".into(), password: "secret".into() }
}

fn known() -> (String, String) {
    ("me".into(), "secret".into())
}

#[tokio::test]
async fn root_mirrors_are_asked_in_order_and_only_for_what_they_can() {
    if !is_root() {
        return;
    }
    let all = [(); 4].map(|()| registry(Lies::default()));
    let mut hosts = Vec::new();
    for one in &all {
        hosts.push(one.serve().await);
    }
    let (last, first) = (&hosts[0], &hosts[1..]);
    let text = format!(
        "server = \"http://{last}\"\n\
         [host.\"http://{}\"]\ncapabilities = [\"push\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\"]\n\
         [host.\"http://{}/other/v2\"]\ncapabilities = [\"resolve\", \"pull\"]\noverride_path = true\n",
        first[0], first[1], first[2]
    );
    by(&text, &Auth::Anonymous).await.unwrap();
    let [own, push, blobs, both] = &all;
    assert!(push.heard().is_empty());
    // It resolves nothing: the tag came from the next, whose path leads nowhere, and so from the host.
    assert_eq!((blobs.count("manifests/1"), both.count("/other/v2/app/manifests/1")), (0, 1));
    assert_eq!(own.count("/v2/app/manifests/1"), 1);
    assert_eq!((blobs.count("/blobs/"), own.count("/blobs/"), both.count("/blobs/")), (3, 0, 0));
    // Mirrors are told whose image it is, the host itself knows.
    let told =
        |registry: &Registry, text: &str| registry.heard().iter().all(|asked| asked.query == text);
    assert!(told(blobs, "ns=registry.test") && told(both, "ns=registry.test") && told(own, ""));
}

#[tokio::test]
async fn root_a_dead_mirror_is_passed_by() {
    if !is_root() {
        return;
    }
    let own = registry(Lies::default());
    let busy = registry(Lies { first_answers: 1000.into(), first_status: 503, ..Lies::default() });
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://127.0.0.1:1\"]\ndial_timeout = \"1s\"\n[host.\"http://{}\"]\n",
        own.serve().await,
        busy.serve().await
    );
    by(&text, &Auth::Anonymous).await.unwrap();
    assert_eq!(busy.count("manifests/1"), 2, "asked twice, then the next");
}

#[tokio::test]
async fn root_headers_and_passwords_stay_with_their_host() {
    if !is_root() {
        return;
    }
    let storage = registry(Lies::default());
    let tokens = registry(Lies { token_for: Some(known()), ..Lies::default() });
    let own = registry(Lies {
        redirects_to: Some(format!("http://{}", storage.serve().await)),
        realm: Some(format!("http://{}/token", tokens.serve().await)),
        ..Lies::default()
    });
    let text =
        format!("server = \"http://{}\"\n[header]\nx-test = \"for the host\"\n", own.serve().await);
    by(&text, &someone()).await.unwrap();
    assert!(own.heard().iter().all(|asked| asked.mark.as_deref() == Some("for the host")));
    assert!(own.heard().iter().all(|asked| asked.authorization != Some(basic("me", "secret"))));
    let elsewhere = [storage.heard(), tokens.heard()].concat();
    assert!(elsewhere.len() >= 4 && elsewhere.iter().all(|asked| asked.mark.is_none()));
    assert!(storage.heard().iter().all(|asked| asked.authorization.is_none()));
    assert_eq!(tokens.heard()[0].authorization, Some(basic("me", "secret")));
    assert!(tokens.heard()[0].query.contains("scope=repository%3Aapp%3Apull"));
}

#[tokio::test]
async fn root_a_mirror_gets_its_own_credentials_and_never_the_pulls() {
    if !is_root() {
        return;
    }
    let own = registry(Lies { basic_for: Some(known()), ..Lies::default() });
    let mirror =
        registry(Lies { basic_for: Some(("mirror".into(), "other".into())), ..Lies::default() });
    let (own_host, mirror_host) = (own.serve().await, mirror.serve().await);
    let text = format!("server = \"http://{own_host}\"\n[host.\"http://{mirror_host}\"]\n");
    by(&text, &someone()).await.unwrap();
    assert!(mirror.heard().iter().all(|asked| asked.authorization.is_none()));
    // The file has credentials for the mirror; then the host is not needed.
    let dir = tempfile::tempdir().unwrap();
    let settings = configured(dir.path(), &text);
    let entry =
        serde_json::json!({"auths": {mirror_host: {"username": "mirror", "password": "other"}}});
    std::fs::write(&settings.auth_file, entry.to_string()).unwrap();
    let before = own.heard().len();
    pull(settings, "registry.test/app:1", &someone()).await.unwrap();
    assert_eq!(own.heard().len(), before);
}

#[tokio::test]
async fn root_the_file_has_credentials_for_who_brings_none() {
    if !is_root() {
        return;
    }
    let own = registry(Lies { token_for: Some(known()), ..Lies::default() });
    let host = own.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let name = format!("{host}/app:1");
    let encoded = data_encoding::BASE64.encode(b"me:secret");
    let entry = serde_json::json!({"auths": {format!("http://{host}"): {"auth": encoded}}});
    std::fs::write(&settings.auth_file, entry.to_string()).unwrap();
    pull(settings.clone(), &name, &Auth::Anonymous).await.unwrap();
    // What a pull brings counts more, and a file that cannot be read is no file without entries.
    let wrong = Auth::Basic { user: "me".into(), password: "wrong".into() };
    std::fs::remove_dir_all(&settings.root).unwrap();
    assert!(matches!(pull(settings.clone(), &name, &wrong).await, Err(ImageError::Denied { .. })));
    std::fs::write(&settings.auth_file, "{").unwrap();
    assert!(matches!(pull(settings, &name, &Auth::Anonymous).await, Err(ImageError::Json { .. })));
}

#[tokio::test]
async fn root_tokens_are_had_by_a_refresh_token_and_presented_as_they_are() {
    if !is_root() {
        return;
    }
    for (lies, auth) in [
        (Lies { refresh: Some("fresh"), ..Lies::default() }, Auth::Identity("fresh".into())),
        (Lies { token_for: Some(known()), ..Lies::default() }, Auth::Bearer("good-token".into())),
    ] {
        let own = registry(lies);
        let text = format!("server = \"http://{}\"\n", own.serve().await);
        by(&text, &auth).await.map_err(|error| error.chain()).unwrap();
        let bearer = matches!(auth, Auth::Bearer(_));
        assert_eq!(own.count("/token"), usize::from(!bearer));
    }
}

#[tokio::test]
async fn places_that_a_registry_may_not_send_us_to() {
    for (place, word) in [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("OWN/again", "more than ten"),
        ("file:///etc/passwd", "neither http nor https"),
        ("http://u:p@127.0.0.1/", "a user or a password"),
        ("http://", "no address"),
    ] {
        let own = registry(Lies { sends_to: Some(place.to_owned()), ..Lies::default() });
        let text = format!("server = \"http://{}\"\n", own.serve().await);
        let told = by(&text, &someone()).await.unwrap_err();
        assert!(matches!(told, ImageError::Redirected { .. }), "{place}: {told:?}");
        assert!(told.chain().contains(word), "{place}: {}", told.chain());
        assert!(own.heard().len() <= 11, "{place}: {}", own.heard().len());
    }
    let realm = Some("http://169.254.169.254/token".to_owned());
    let own = registry(Lies { realm, ..Lies::default() });
    let text = format!("server = \"http://{}\"\n", own.serve().await);
    let told = by(&text, &someone()).await.unwrap_err();
    assert!(matches!(told, ImageError::Denied { .. }) && told.chain().contains("link-local"));
}

#[tokio::test]
async fn what_another_host_answers_is_not_told() {
    let other = registry(Lies { first_answers: 9.into(), first_status: 403, ..Lies::default() });
    let place = format!("http://{}/x", other.serve().await);
    let own = registry(Lies { sends_to: Some(place), ..Lies::default() });
    let text =
        format!("server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n", own.serve().await);
    let told = by(&text, &Auth::Anonymous).await.unwrap_err().chain();
    assert!(told.contains("403") && !told.contains("later"), "{told}");
}

#[tokio::test]
async fn a_mistake_in_a_hosts_file_is_told_with_its_place() {
    let told = by("server = \"https://u:p@r.io\"\n", &Auth::Anonymous).await.unwrap_err();
    assert!(matches!(told, ImageError::Toml { .. }), "{told:?}");
    assert!(told.chain().contains("hosts.toml") && !told.chain().contains("u:p"), "{told:?}");
    let none = by("[host.\"https://r.io\"]\ncapabilities = [\"all\"]\n", &Auth::Anonymous).await;
    assert!(none.unwrap_err().chain().contains("\"all\""));
    let nothing =
        by("capabilities = [\"push\"]\nserver = \"http://127.0.0.1:1\"\n", &Auth::Anonymous);
    let nothing = nothing.await.unwrap_err();
    assert_eq!(nothing.kind(), Kind::TryAgain);
    assert!(nothing.chain().contains("no endpoint is configured"), "{}", nothing.chain());
}
