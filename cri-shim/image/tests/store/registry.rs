//! A registry in memory that speaks distribution v2 over HTTP and misbehaves as it is told.

use crate::support::{Image, digest};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What it does wrong, or asks for.
#[derive(Debug, Default)]
pub(crate) struct Lies {
    /// Wants a token, which it hands out for this user and password.
    pub(crate) token_for: Option<(String, String)>,
    /// Wants user and password themselves.
    pub(crate) basic_for: Option<(String, String)>,
    /// Answers so many requests with this status first.
    pub(crate) first_answers: AtomicU32,
    pub(crate) first_status: u16,
    pub(crate) retry_after: Option<&'static str>,
    /// Breaks the first so many blob downloads after so many bytes.
    pub(crate) breaks: AtomicU32,
    pub(crate) break_after: usize,
    /// Says nothing more after so many bytes of the first so many downloads of layers.
    pub(crate) stalls: AtomicU32,
    pub(crate) stall_after: usize,
    pub(crate) ranges: Ranges,
    pub(crate) bytes: Layers,
    /// Sends blobs elsewhere: to this base address.
    pub(crate) redirects_to: Option<String>,
    /// Sends everything elsewhere: to this very address.
    pub(crate) sends_to: Option<String>,
    /// Where its tokens are said to be had; `HOST` is itself. Usually at itself.
    pub(crate) realm: Option<String>,
    /// A refresh token for which it hands out tokens.
    pub(crate) refresh: Option<&'static str>,
}

/// What it does with `Range`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ranges {
    #[default]
    Kept,
    Ignored,
    /// Answers with another range than was asked for.
    Other,
}

/// What it does with the bytes of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layers {
    #[default]
    Honest,
    /// One bit is another.
    Flipped,
    /// More bytes than the manifest says.
    Longer,
}

/// One request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    /// The header `x-test`, which only a test's `hosts.toml` sets.
    pub(crate) mark: Option<String>,
    /// The host that was asked for.
    pub(crate) host: Option<String>,
}

/// The registry's content and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) lies: Lies,
    manifests: Mutex<BTreeMap<String, (String, Vec<u8>)>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Every request, in order.
    pub(crate) asked: Mutex<Vec<Asked>>,
}

impl Registry {
    pub(crate) fn lying(lies: Lies) -> Self {
        Self { lies, ..Self::default() }
    }

    /// Stores an image under `repository:tag` and its digest.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.blobs.lock().unwrap().insert(digest(blob), blob.clone());
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.put_manifest(repository, tag, kind, &image.manifest);
    }

    /// Stores any manifest.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        for name in [tag, &digest(bytes)] {
            let key = format!("{repository}/manifests/{name}");
            self.manifests.lock().unwrap().insert(key, (kind.to_owned(), bytes.to_vec()));
        }
    }

    /// Serves on a free port of loopback; gives `127.0.0.1:PORT`.
    pub(crate) async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let app = self.app(&format!("http://{host}"));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        host
    }

    /// What answers requests; `own` is its address for others.
    pub(crate) fn app(self: &Arc<Self>, own: &str) -> Router {
        Router::new().fallback(answer).with_state((Arc::clone(self), own.to_owned()))
    }

    /// Every request so far.
    pub(crate) fn heard(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a path that contains `part` was asked.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.heard().iter().filter(|asked| asked.path.contains(part)).count()
    }

    fn may_enter(&self, headers: &HeaderMap) -> Result<(), String> {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        if let Some((user, password)) = &self.lies.basic_for {
            let wanted = basic(user, password);
            return if given == Some(&wanted) {
                Ok(())
            } else {
                Err("Basic realm=\"test\"".into())
            };
        }
        let wants_token = self.lies.token_for.is_some() || self.lies.refresh.is_some();
        if (wants_token || self.lies.realm.is_some()) && given != Some("Bearer good-token") {
            let realm = self.lies.realm.as_deref().unwrap_or("OWN/token");
            return Err(format!("Bearer realm=\"{realm}\",service=\"test\""));
        }
        Ok(())
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

async fn answer(
    State((registry, own)): State<(Arc<Registry>, String)>,
    request: Request,
) -> Response {
    let asked = asked_by(&request);
    registry.asked.lock().unwrap().push(asked.clone());
    let (lies, path) = (&registry.lies, asked.path);
    if path == "/token" {
        return token(lies, asked.authorization, request).await;
    }
    if let Some(to) = &lies.sends_to {
        return (StatusCode::FOUND, [(header::LOCATION, to.replace("OWN", &own))]).into_response();
    }
    let left =
        lies.first_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    if left.is_ok() {
        let status = StatusCode::from_u16(lies.first_status).unwrap();
        let mut response = (status, "later").into_response();
        if let Some(wait) = lies.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, wait.parse().unwrap());
        }
        return response;
    }
    if let Err(challenge) = registry.may_enter(request.headers()) {
        let challenge = challenge.replace("OWN", &own);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], "no")
            .into_response();
    }
    let key = path.strip_prefix("/v2/").unwrap_or(&path);
    if let Some((kind, bytes)) = registry.manifests.lock().unwrap().get(key).cloned() {
        return ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    }
    let blob = key
        .rsplit_once("/blobs/")
        .and_then(|(_, name)| registry.blobs.lock().unwrap().get(name).cloned());
    match blob {
        Some(bytes) => serve_blob(lies, &path, bytes, asked.range.as_deref()),
        None => (StatusCode::NOT_FOUND, "no such thing").into_response(),
    }
}

fn asked_by(request: &Request) -> Asked {
    let text = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    Asked {
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: text("authorization"),
        range: text("range"),
        mark: text("x-test"),
        host: text("host"),
    }
}

/// The token service.
async fn token(lies: &Lies, given: Option<String>, request: Request) -> Response {
    let known = lies.token_for.as_ref().map(|(user, password)| basic(user, password));
    let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    let refreshed = lies.refresh.map(|token| body.ends_with(&format!("refresh_token={token}")));
    if refreshed.unwrap_or(given == known) {
        r#"{"token":"good-token"}"#.into_response()
    } else {
        (StatusCode::UNAUTHORIZED, "who are you").into_response()
    }
}

fn serve_blob(lies: &Lies, path: &str, mut bytes: Vec<u8>, range: Option<&str>) -> Response {
    if let Some(base) = &lies.redirects_to {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("{base}{path}"))])
            .into_response();
    }
    let is_layer = !bytes.starts_with(b"{");
    if is_layer && lies.bytes == Layers::Flipped {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    if is_layer && lies.bytes == Layers::Longer {
        bytes.extend_from_slice(b"more");
    }
    let from = range
        .filter(|_| lies.ranges != Ranges::Ignored)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let whole = bytes.len();
    let part = bytes.split_off(from.unwrap_or(0).min(whole));
    let breaks = is_layer
        && lies
            .breaks
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
    let stalls = is_layer
        && lies
            .stalls
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
    let length = part.len();
    let body = match (breaks, stalls) {
        (true, _) => broken_body(part, lies.break_after),
        (false, true) => stalled_body(part, lies.stall_after),
        (false, false) => Body::from(part),
    };
    let mut response = Response::builder().header(header::CONTENT_LENGTH, length);
    if let Some(from) = from {
        let told = if lies.ranges == Ranges::Other { from + 1 } else { from };
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {told}-{}/{whole}", whole - 1));
    }
    response.body(body).unwrap()
}

/// Some bytes, then nothing.
fn stalled_body(part: Vec<u8>, after: usize) -> Body {
    let some = Bytes::from(part).slice(..after);
    let stream = futures_util::stream::unfold(Some(some), |state| async {
        match state {
            Some(some) => Some((Ok::<_, std::io::Error>(some), None)),
            None => std::future::pending().await,
        }
    });
    Body::from_stream(stream)
}

/// Some bytes, then a broken connection.
fn broken_body(part: Vec<u8>, after: usize) -> Body {
    let some = Bytes::from(part).slice(..after);
    let stream = futures_util::stream::unfold(Some(some), |state| async {
        match state {
            Some(some) if !some.is_empty() => Some((Ok(some), Some(Bytes::new()))),
            Some(_) => {
                // Lets what was written before leave first.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Some((Err(std::io::Error::other("broken")), None))
            }
            None => None,
        }
    });
    Body::from_stream(stream)
}
