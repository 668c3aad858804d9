//! Answers to a challenge: user and password, or a token from the service that the registry names
//! (distribution's token specification). The service may be anywhere that `hop` allows; what it is sent is
//! meant for this registry, so it is never sent over a weaker transport than the registry's own.

use super::challenge::Challenge;
use super::client::{Client, basic};
use super::hop;
use crate::auth::Auth;
use crate::error::ImageError;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use shim_model::limits;

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// What a token is for.
struct Wanted {
    realm: Url,
    service: String,
    scope: String,
}

/// The value of `Authorization` that a challenge asks for. `repository` is what is to be pulled, `url` what
/// was asked.
pub(super) async fn answer(
    client: &Client,
    challenge: Option<Challenge>,
    repository: &str,
    url: &str,
) -> Result<HeaderValue, ImageError> {
    let denied = |said: &str| client.denied(url, said);
    let value = match (challenge, client.auth()) {
        (_, Auth::Bearer(token)) => format!("Bearer {token}"),
        (Some(Challenge::Basic), Auth::Basic { user, password }) => basic(user, password),
        (Some(Challenge::Bearer { realm, service, scope }), _) => {
            let realm = realm_of(client, &realm).map_err(|said| client.denied(&realm, said))?;
            let own = || format!("repository:{repository}:pull");
            let scope = if scope.is_empty() { own() } else { scope };
            format!("Bearer {}", token(client, Wanted { realm, service, scope }).await?)
        }
        (Some(Challenge::Basic), _) => return Err(denied("it asks for a user and a password")),
        (None, _) => return Err(denied("it asks for credentials in a way that is not known")),
    };
    let mut value =
        HeaderValue::from_str(&value).map_err(|_bad| denied("its token is not usable"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn realm_of(client: &Client, realm: &str) -> Result<Url, &'static str> {
    let to = Url::parse(realm).map_err(|_bad| "its token service has no address")?;
    if client.home().scheme() == "https" && to.scheme() != "https" {
        return Err("it names a token service without TLS");
    }
    hop::may_ask(&to, client.home()).map(|()| to)
}

/// Asks the token service. A redirect is not followed: what is sent there is secret.
async fn token(client: &Client, wanted: Wanted) -> Result<String, ImageError> {
    let realm = wanted.realm.to_string();
    let request = match client.auth() {
        Auth::Identity(refresh) => by_refresh(client, &wanted, refresh),
        Auth::Basic { user, password } => {
            by_address(client, wanted).header(AUTHORIZATION, basic(user, password))
        }
        Auth::Anonymous | Auth::Bearer(_) => by_address(client, wanted),
    };
    let response = request.send().await.map_err(|error| client.unreachable(&realm, &error))?;
    if !response.status().is_success() {
        return Err(client.told(response, &realm).await);
    }
    let bytes = client.body(response, &realm, limits::TOKEN_BYTES).await?;
    // The reader's own words could repeat what a stranger's service answered.
    let token: Token = serde_json::from_slice(&bytes)
        .map_err(|_bad| client.denied(&realm, "its token service answers with no token"))?;
    let token = if token.token.is_empty() { token.access_token } else { token.token };
    if token.is_empty() {
        return Err(client.denied(&realm, "its token service answers with an empty token"));
    }
    Ok(token)
}

fn by_address(client: &Client, wanted: Wanted) -> RequestBuilder {
    let mut url = wanted.realm;
    url.query_pairs_mut()
        .append_pair("service", &wanted.service)
        .append_pair("scope", &wanted.scope);
    client.headed(&url, client.http().get(&url))
}

fn by_refresh(client: &Client, wanted: &Wanted, refresh: &str) -> RequestBuilder {
    let form = [
        ("grant_type", "refresh_token"),
        ("service", &wanted.service),
        ("scope", &wanted.scope),
        ("client_id", "wherry"),
        ("refresh_token", refresh),
    ];
    let body: Vec<String> =
        form.iter().map(|(key, value)| format!("{key}={}", percent(value))).collect();
    client
        .headed(&wanted.realm, client.http().post(&wanted.realm))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body.join("&"))
}

fn percent(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|b| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
