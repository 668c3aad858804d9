//! One endpoint of a registry: requests with their redirects, retries and the answer to a challenge.
//! Credentials and configured headers go to the endpoint's own origin and to no other; a token service
//! gets what `token` sends it.

use super::connect::{self, Http};
use super::{challenge, hop, range, retry, token};
use crate::auth::Auth;
use crate::error::ImageError;
use crate::hosts::Endpoint;
use crate::reference::Reference;
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use shim_model::digest::BlobDigest;
use shim_model::limits;

/// One endpoint and what is known about talking to it.
#[derive(Debug)]
pub struct Client {
    http: Http,
    endpoint: Endpoint,
    host: String,
    auth: Auth,
    headers: HeaderMap,
    /// Tries of one request, the first among them.
    tries: u32,
    authorization: Mutex<Option<HeaderValue>>,
}

/// What is asked for, besides the address.
#[derive(Clone, Copy)]
struct Wish {
    accept: Option<&'static str>,
    /// First byte of a blob that is wanted.
    from: u64,
}

impl Client {
    /// Prepares to talk to an endpoint for `host` with these credentials; `tries` of each request.
    pub fn new(endpoint: Endpoint, host: &str, auth: Auth, tries: u32) -> Result<Self, ImageError> {
        let headers = headers(&endpoint)
            .map_err(|said| ImageError::Client { host: host.to_owned(), said })?;
        let http = Http::open(&endpoint, host)?;
        let (host, authorization) = (host.to_owned(), Mutex::new(None));
        Ok(Self { http, endpoint, host, auth, headers, tries: tries.max(1), authorization })
    }

    /// True if tags may be asked of it.
    pub fn resolves(&self) -> bool {
        self.endpoint.resolve
    }

    /// A manifest: its bytes and the media type it was served as.
    pub async fn manifest(
        &self,
        reference: &Reference,
        what: &str,
    ) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let url = self.url(reference, &format!("manifests/{what}"));
        let wish = Wish { accept: Some(crate::manifest::ACCEPT), from: 0 };
        let response = self.ask(&url, reference, wish).await?;
        let header = response.headers().get(CONTENT_TYPE);
        let served = header
            .and_then(|v| v.to_str().ok())
            .map(|v| v.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = self.body(response, &url, limits::MANIFEST_BYTES).await?;
        Ok((bytes, served))
    }

    /// A small blob, whole.
    pub async fn small_blob(
        &self,
        reference: &Reference,
        digest: &BlobDigest,
        limit: usize,
    ) -> Result<Vec<u8>, ImageError> {
        let url = self.url(reference, &format!("blobs/{digest}"));
        let response = self.ask(&url, reference, Wish { accept: None, from: 0 }).await?;
        self.body(response, &url, limit).await
    }

    /// A blob from a byte on. The answer says where its bytes really start: 0 if the registry does not
    /// do ranges.
    pub async fn blob(
        &self,
        reference: &Reference,
        digest: &BlobDigest,
        from: u64,
    ) -> Result<(Response, u64), ImageError> {
        let url = self.url(reference, &format!("blobs/{digest}"));
        let wish = Wish { accept: None, from };
        let response = self.ask(&url, reference, wish).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, 0));
        }
        if range::starts_at(response.headers()) == Some(from) {
            return Ok((response, from));
        }
        // Another range than was asked for is no use: from the start, without asking for a range.
        let whole = Wish { accept: None, from: 0 };
        self.ask(&url, reference, whole).await.map(|response| (response, 0))
    }

    /// A mirror is told whose content is wanted (`ns`, as containerd does): one mirror may serve several
    /// registries.
    fn url(&self, reference: &Reference, what: &str) -> String {
        let base = self.endpoint.base.as_str().trim_end_matches('/');
        let whole = format!("{base}/{}/{what}", reference.path);
        if self.endpoint.own { whole } else { format!("{whole}?ns={}", self.host) }
    }

    /// One request with retries and, once, an answer to a challenge.
    async fn ask(
        &self,
        url: &str,
        reference: &Reference,
        wish: Wish,
    ) -> Result<Response, ImageError> {
        let mut challenged = false;
        let mut failed = 0;
        loop {
            let (failure, wait) = match self.send(url, wish).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    match self.answer_challenge(&response, &reference.path, url).await {
                        Ok(()) => {
                            challenged = true;
                            continue;
                        }
                        Err(failure) => (failure, None),
                    }
                }
                Ok(response) => {
                    let wait = wished(&response);
                    (self.told(response, url).await, wait)
                }
                Err(failure) => (failure, None),
            };
            failed += 1;
            if failed >= self.tries || !retry::may_pass(&failure) {
                return Err(failure);
            }
            let pause = retry::pause(failed, rand::random());
            tokio::time::sleep(wait.map_or(pause, |wait| wait.saturating_add(pause))).await;
        }
    }

    /// One request and the redirects that it meets.
    async fn send(&self, url: &str, wish: Wish) -> Result<Response, ImageError> {
        let led = |said: &str| ImageError::Redirected {
            what: shown(url),
            host: self.host.clone(),
            said: said.to_owned(),
        };
        let mut at = Url::parse(url).map_err(|_bad| led("the address is none"))?;
        for _hop in 0..=limits::REGISTRY_HOPS {
            let mut request = self.headed(&at, self.http.get(&at));
            if let Some(accept) = wish.accept {
                request = request.header(ACCEPT, accept);
            }
            if wish.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", wish.from));
            }
            let response = request.send().await.map_err(|error| self.failed(url, &error))?;
            let status = response.status();
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return self.told_by_its_own(&at, response);
            }
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let location = location.ok_or_else(|| led("it does not say where to"))?;
            at = hop::next(&at, location, self.home()).map_err(led)?;
        }
        Err(led("it takes more than ten redirects"))
    }

    /// What another origin refuses is no answer of the registry: its words are not told (they could be
    /// those of a service that only this node reaches), its challenges not answered.
    fn told_by_its_own(&self, at: &Url, response: Response) -> Result<Response, ImageError> {
        let status = response.status();
        if status.is_success() || hop::same_origin(at, self.home()) {
            return Ok(response);
        }
        Err(self.unavailable(at.as_str(), format!("it was led there, and the answer is {status}")))
    }

    /// Headers and credentials, where they may go.
    pub(super) fn headed(&self, to: &Url, request: RequestBuilder) -> RequestBuilder {
        if !hop::same_origin(to, self.home()) {
            return request;
        }
        let mut headers = self.headers.clone();
        if let Some(known) = self.authorization.lock().clone() {
            headers.insert(AUTHORIZATION, known);
        }
        request.headers(headers)
    }

    async fn answer_challenge(
        &self,
        response: &Response,
        repository: &str,
        url: &str,
    ) -> Result<(), ImageError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = headers.iter().filter_map(|v| v.to_str().ok()).find_map(challenge::parse);
        // A token that is over must not go along to where a new one is asked for.
        *self.authorization.lock() = None;
        let value = token::answer(self, challenge, repository, url).await?;
        *self.authorization.lock() = Some(value);
        Ok(())
    }

    /// A body of at most so many bytes.
    pub(super) async fn body(
        &self,
        mut response: Response,
        url: &str,
        limit: usize,
    ) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.unreachable(url, &error))?
        {
            if bytes.len().saturating_add(chunk.len()) > limit {
                return Err(ImageError::Bound { what: shown(url), bound: limit as u64 });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// A refusal as an error, in the registry's words.
    pub(super) async fn told(&self, response: Response, url: &str) -> ImageError {
        let status = response.status().as_u16();
        let own = hop::same_origin(response.url(), self.home());
        let said = self.body(response, url, 64 << 10).await.unwrap_or_default();
        let said: String =
            String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(200).collect();
        let said = if own { said } else { format!("status {status}") };
        let (what, host) = (shown(url), self.host.clone());
        match status {
            404 => ImageError::NotInRegistry { what, host },
            401 | 403 => ImageError::Denied { what, host, said },
            500.. => self.unavailable(url, format!("{status} {said}")),
            _ => ImageError::Status { what, host, status, said },
        }
    }

    /// A connection that failed; addresses may hold secrets, so only the cause is told.
    pub fn unreachable(&self, url: &str, error: &reqwest::Error) -> ImageError {
        self.unavailable(url, connect::innermost(error))
    }

    /// Likewise, for a request that was not sent: an untrusted certificate is not tried again.
    fn failed(&self, url: &str, error: &reqwest::Error) -> ImageError {
        if connect::is_untrusted(error) {
            let said = connect::innermost(error);
            return ImageError::Client { host: self.host.clone(), said };
        }
        self.unreachable(url, error)
    }

    fn unavailable(&self, url: &str, said: String) -> ImageError {
        ImageError::Unavailable { what: shown(url), host: self.host.clone(), said }
    }

    pub(super) fn denied(&self, url: &str, said: &str) -> ImageError {
        ImageError::Denied { what: shown(url), host: self.host.clone(), said: said.to_owned() }
    }

    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    /// Where credentials and headers may go.
    pub(super) fn home(&self) -> &Url {
        &self.endpoint.base
    }
}

/// The wait that a refusal asks for.
fn wished(response: &Response) -> Option<std::time::Duration> {
    let wish = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let now = u64::try_from(shim_sys::clock::now() / 1_000_000_000).unwrap_or_default();
    retry::asked(wish, now)
}

fn headers(endpoint: &Endpoint) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, values) in &endpoint.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("header {name}: {e}"))?;
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|e| format!("header {name}: {e}"))?;
            map.append(name.clone(), value);
        }
    }
    Ok(map)
}

pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// An address without its query, which may hold a signature.
pub(super) fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(300).collect()
}
