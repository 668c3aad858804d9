//! One endpoint of a registry. Credentials go to the registry's own host and to the token service
//! that it names, never along a redirect to another origin (reqwest drops them there), and never from
//! HTTPS to HTTP.

use super::challenge::{self, Challenge};
use super::{range, retry};
use crate::auth::Auth;
use crate::error::ImageError;
use crate::hosts::Endpoint;
use crate::reference::Reference;
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use shim_model::digest::BlobDigest;
use std::time::Duration;

/// A connection that says nothing for so long is given up.
const STALL: Duration = Duration::from_mins(1);
const CONNECT: Duration = Duration::from_secs(20);
/// Bytes of a token service's answer.
const TOKEN_BYTES: usize = 1 << 20;

/// One endpoint and what is known about talking to it.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    host: String,
    auth: Auth,
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Client {
    /// Prepares to talk to an endpoint for `host` with these credentials.
    pub fn new(endpoint: Endpoint, host: &str, auth: Auth) -> Result<Self, ImageError> {
        let broken = |said: String| ImageError::Client { host: host.to_owned(), said };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .tls_danger_accept_invalid_certs(endpoint.skip_verify)
            .redirect(reqwest::redirect::Policy::custom(redirect))
            .default_headers(headers(&endpoint).map_err(broken)?);
        for path in &endpoint.ca {
            let pem = std::fs::read(path).map_err(ImageError::file("read", path))?;
            for root in
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| broken(e.to_string()))?
            {
                builder = builder.add_root_certificate(root);
            }
        }
        for (certificate, key) in &endpoint.client {
            let mut pem =
                std::fs::read(certificate).map_err(ImageError::file("read", certificate))?;
            if let Some(key) = key {
                pem.extend(std::fs::read(key).map_err(ImageError::file("read", key))?);
            }
            builder = builder
                .identity(reqwest::Identity::from_pem(&pem).map_err(|e| broken(e.to_string()))?);
        }
        let http = builder.build().map_err(|e| broken(e.to_string()))?;
        Ok(Self { http, endpoint, host: host.to_owned(), auth, authorization: Mutex::new(None) })
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
        let url = format!("{}/{}/manifests/{what}", self.endpoint.base, reference.path);
        let response = self.ask(&url, reference, Some(crate::manifest::ACCEPT), 0).await?;
        let header = response.headers().get(reqwest::header::CONTENT_TYPE);
        let served = header
            .and_then(|v| v.to_str().ok())
            .map(|v| v.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = self.body(response, &url, crate::manifest::BYTES).await?;
        Ok((bytes, served))
    }

    /// A small blob, whole.
    pub async fn small_blob(
        &self,
        reference: &Reference,
        digest: &BlobDigest,
        limit: usize,
    ) -> Result<Vec<u8>, ImageError> {
        let url = self.blob_url(reference, digest);
        let response = self.ask(&url, reference, None, 0).await?;
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
        let url = self.blob_url(reference, digest);
        let response = self.ask(&url, reference, None, from).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, 0));
        }
        if range::starts_at(response.headers()) == Some(from) {
            return Ok((response, from));
        }
        // Another range than was asked for is no use: from the start, without asking for a range.
        self.ask(&url, reference, None, 0).await.map(|response| (response, 0))
    }

    fn blob_url(&self, reference: &Reference, digest: &BlobDigest) -> String {
        format!("{}/{}/blobs/{digest}", self.endpoint.base, reference.path)
    }

    /// One request with retries and, once, an answer to a challenge.
    async fn ask(
        &self,
        url: &str,
        reference: &Reference,
        accept: Option<&str>,
        from: u64,
    ) -> Result<Response, ImageError> {
        let mut challenged = false;
        let mut tried = 0;
        loop {
            tried += 1;
            let failure = match self.send(url, accept, from).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    tried -= 1;
                    self.answer_challenge(&response, reference, url).await?;
                    continue;
                }
                Ok(response) => {
                    let status = response.status().as_u16();
                    let wish = response
                        .headers()
                        .get(RETRY_AFTER)
                        .and_then(|v| v.to_str().ok())
                        .map(str::to_owned);
                    let failure = self.told(response, url).await;
                    if !retry::may_pass(status) || tried >= retry::TRIES {
                        return Err(failure);
                    }
                    let now =
                        u64::try_from(shim_sys::clock::now() / 1_000_000_000).unwrap_or_default();
                    if let Some(wait) = wish.and_then(|wish| retry::asked(&wish, now)) {
                        tokio::time::sleep(wait).await;
                    }
                    failure
                }
                Err(failure) => failure,
            };
            if tried >= retry::TRIES {
                return Err(failure);
            }
            tokio::time::sleep(retry::pause(tried, rand::random())).await;
        }
    }

    async fn send(
        &self,
        url: &str,
        accept: Option<&str>,
        from: u64,
    ) -> Result<Response, ImageError> {
        let mut request = self.http.get(url);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let known = self.authorization.lock().clone();
        if let Some(value) = known {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| self.unreachable(url, &error))
    }

    async fn answer_challenge(
        &self,
        response: &Response,
        reference: &Reference,
        url: &str,
    ) -> Result<(), ImageError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = headers.iter().filter_map(|v| v.to_str().ok()).find_map(challenge::parse);
        let denied = |said: &str| ImageError::Denied {
            what: shown(url),
            host: self.host.clone(),
            said: said.to_owned(),
        };
        let value = match (challenge, &self.auth) {
            (_, Auth::Bearer(token)) => format!("Bearer {token}"),
            (Some(Challenge::Basic), Auth::Basic { user, password }) => basic(user, password),
            (Some(Challenge::Bearer { realm, service, scope }), auth) => {
                let scope = if scope.is_empty() {
                    format!("repository:{}:pull", reference.path)
                } else {
                    scope
                };
                format!("Bearer {}", self.token(&realm, &service, &scope, auth).await?)
            }
            (Some(Challenge::Basic), _) => return Err(denied("it asks for a user and a password")),
            (None, _) => return Err(denied("it asks for credentials in a way that is not known")),
        };
        let mut value =
            HeaderValue::from_str(&value).map_err(|_bad| denied("its token is not usable"))?;
        value.set_sensitive(true);
        *self.authorization.lock() = Some(value);
        Ok(())
    }

    /// Asks the token service that the registry named.
    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        auth: &Auth,
    ) -> Result<String, ImageError> {
        if self.endpoint.base.starts_with("https://") && !realm.starts_with("https://") {
            let said = "it names a token service without TLS".to_owned();
            return Err(ImageError::Denied { what: shown(realm), host: self.host.clone(), said });
        }
        let request = match auth {
            Auth::Identity(refresh) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("scope", scope),
                    ("client_id", "wherry"),
                    ("refresh_token", refresh),
                ];
                let body: Vec<String> =
                    form.iter().map(|(key, value)| format!("{key}={}", percent(value))).collect();
                self.http
                    .post(realm)
                    .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body.join("&"))
            }
            other => {
                let joint = if realm.contains('?') { '&' } else { '?' };
                let url =
                    format!("{realm}{joint}service={}&scope={}", percent(service), percent(scope));
                let request = self.http.get(url);
                match other {
                    Auth::Basic { user, password } => {
                        request.header(AUTHORIZATION, basic(user, password))
                    }
                    Auth::Anonymous | Auth::Bearer(_) | Auth::Identity(_) => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| self.unreachable(realm, &error))?;
        if !response.status().is_success() {
            return Err(self.told(response, realm).await);
        }
        let bytes = self.body(response, realm, TOKEN_BYTES).await?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|source| ImageError::Json {
            what: format!("the token of {}", self.host),
            source,
        })?;
        Ok(if token.token.is_empty() { token.access_token } else { token.token })
    }

    /// A body of at most so many bytes.
    async fn body(
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

    async fn told(&self, response: Response, url: &str) -> ImageError {
        let status = response.status().as_u16();
        let said = self.body(response, url, 64 << 10).await.unwrap_or_default();
        let said: String =
            String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(200).collect();
        match status {
            404 => ImageError::NotInRegistry { what: shown(url), host: self.host.clone() },
            401 | 403 => ImageError::Denied { what: shown(url), host: self.host.clone(), said },
            500.. => ImageError::Unavailable {
                what: shown(url),
                host: self.host.clone(),
                said: format!("{status} {said}"),
            },
            _ => self.status(status, url, said),
        }
    }

    fn status(&self, status: u16, url: &str, said: String) -> ImageError {
        ImageError::Status { what: shown(url), host: self.host.clone(), status, said }
    }

    /// A connection that failed; addresses may hold secrets, so only the causes are told.
    pub fn unreachable(&self, url: &str, error: &reqwest::Error) -> ImageError {
        let mut said = String::new();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
        while let Some(next) = cause {
            said = next.to_string();
            cause = next.source();
        }
        let said = if said.is_empty() { "the connection failed".to_owned() } else { said };
        ImageError::Unavailable { what: shown(url), host: self.host.clone(), said }
    }
}

/// At most ten hops, never from HTTPS to HTTP.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > 10 {
        return attempt.error("more than ten redirects");
    }
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to http");
    }
    attempt.follow()
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

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn percent(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// An address without its query, which may hold a signature.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(300).collect()
}
