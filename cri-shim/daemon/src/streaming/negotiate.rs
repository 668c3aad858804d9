//! From a request's head to what will be spoken, or why not (`cri-contract.md` 4.3, 4.7). Pure. Of what a
//! client offers the first known one counts, in its order. Host, Origin and forwarding headers are not
//! looked at: kubelets pass their clients' ones on. No answer here ever sends a client elsewhere.

use super::status::Form;
use super::websocket::channels::{Coding, Framing};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const OFFERED: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const FORWARD: &str = "portforward.k8s.io";

/// What was asked for: it decides which protocols there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Exec or attach.
    Command,
    Forward,
}

/// What is spoken after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// A command's streams over SPDY.
    SpdyCommand { resizes: bool, form: Form },
    /// A command's streams as channels of a WebSocket.
    SocketCommand { framing: Framing, form: Form },
    /// Pairs of streams over SPDY.
    SpdyForward,
    /// The same within a WebSocket.
    TunnelForward,
    /// Two channels of a WebSocket for each port.
    SocketForward { framing: Framing },
}

/// The answer that begins it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) spoken: Spoken,
    headers: HeaderMap,
}

/// Why it does not begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), headers: Vec::new() }
    }

    /// The answer to the client.
    pub(crate) fn response(self) -> Response<String> {
        let mut response = Response::new(self.text);
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Agreed {
    /// The answer to the client.
    pub(crate) fn response(&self) -> Response<String> {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

/// Decides what is spoken.
pub(crate) fn negotiate(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let upgrades = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |name: &str| words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case(name));
    match () {
        () if upgrades && to("websocket") => websocket(purpose, headers),
        () if upgrades && to("SPDY/3.1") => spdy(purpose, headers),
        () => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: the request has neither Upgrade: SPDY/3.1 nor Upgrade: websocket",
        )),
    }
}

fn spdy(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let mut offered = words(headers, &OFFERED).peekable();
    if offered.peek().is_none() {
        let text = format!("unable to upgrade: the header {OFFERED} is missing or empty");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let known = offered.find_map(|name| Some((name, over_spdy(purpose, name)?)));
    let Some((name, spoken)) = known else { return Err(nothing_in_common(purpose, headers)) };
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    answer.extend(text(name).map(|name| (OFFERED, name)));
    Ok(Agreed { spoken, headers: answer })
}

const COMMANDS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

fn over_spdy(purpose: Purpose, name: &str) -> Option<Spoken> {
    let command = |resizes, form| Some(Spoken::SpdyCommand { resizes, form });
    match (purpose, name) {
        (Purpose::Command, "v4.channel.k8s.io") => command(true, Form::Json),
        (Purpose::Command, "v3.channel.k8s.io") => command(true, Form::Text),
        (Purpose::Command, "v2.channel.k8s.io" | "channel.k8s.io") => command(false, Form::Text),
        (Purpose::Forward, FORWARD) => Some(Spoken::SpdyForward),
        (Purpose::Command | Purpose::Forward, _) => None,
    }
}

fn nothing_in_common(purpose: Purpose, headers: &HeaderMap) -> Refusal {
    let accepted: &[&str] = match purpose {
        Purpose::Command => &COMMANDS,
        Purpose::Forward => &[FORWARD],
    };
    let offered: Vec<&str> = words(headers, &OFFERED).collect();
    let said = format!(
        "unable to upgrade: the client offers {}, the server accepts {}",
        offered.join(", "),
        accepted.join(", ")
    );
    let mut refusal = Refusal::new(StatusCode::FORBIDDEN, said);
    refusal.headers.extend(accepted.iter().map(|name| (ACCEPTED, *name)));
    refusal
}

fn websocket(purpose: Purpose, headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let bad = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, text);
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if version != Some(b"13") {
        let mut refusal = bad("the WebSocket's version is not 13");
        refusal.headers.push((SEC_WEBSOCKET_VERSION, "13"));
        return Err(refusal);
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(bad("the WebSocket's key is missing"));
    };
    let mut offered = words(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    let known = if offered.peek().is_none() {
        over_websocket(purpose, "").map(|spoken| ("", spoken))
    } else {
        offered.find_map(|name| Some((name, over_websocket(purpose, name)?)))
    };
    let Some((name, spoken)) = known else {
        let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
        let text = format!("none of the WebSocket protocols {} is known", offered.join(", "));
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    };
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = derive_accept_key(key.as_bytes());
    answer.extend(text(&accept).map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    if !name.is_empty() {
        answer.extend(text(name).map(|name| (SEC_WEBSOCKET_PROTOCOL, name)));
    }
    Ok(Agreed { spoken, headers: answer })
}

/// The empty name is a client that offers none.
fn over_websocket(purpose: Purpose, name: &str) -> Option<Spoken> {
    if purpose == Purpose::Forward && name == TUNNEL {
        return Some(Spoken::TunnelForward);
    }
    let framing = |coding, closes| Framing { coding, closes };
    let (framing, form) = match name {
        "v5.channel.k8s.io" => (framing(Coding::Binary, true), Form::Json),
        "v4.channel.k8s.io" => (framing(Coding::Binary, false), Form::Json),
        "v4.base64.channel.k8s.io" => (framing(Coding::Base64, false), Form::Json),
        "channel.k8s.io" | "" => (framing(Coding::Binary, false), Form::Text),
        "base64.channel.k8s.io" => (framing(Coding::Base64, false), Form::Text),
        _ => return None,
    };
    match purpose {
        Purpose::Command => Some(Spoken::SocketCommand { framing, form }),
        // Ports have only the fourth version's forms, and the one without a name.
        Purpose::Forward if framing.closes => None,
        Purpose::Forward if form == Form::Text && !name.is_empty() => None,
        Purpose::Forward => Some(Spoken::SocketForward { framing }),
    }
}

/// The words of a header that holds lists, over all its lines.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// A word that came as a header can go as one.
fn text(word: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(word).ok()
}

#[cfg(test)]
mod tests {
    use super::{Purpose, negotiate};
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    /// The answer to a request with these headers, as text.
    fn check(purpose: Purpose, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let (response, spoken) = match negotiate(purpose, &headers) {
            Ok(agreed) => (agreed.response(), format!("{:?}", agreed.spoken)),
            Err(refusal) => (refusal.response(), String::new()),
        };
        let mut text = format!("{} {spoken}{}", response.status().as_u16(), response.body());
        for (name, value) in response.headers() {
            text = format!("{text}\n  {name}: {}", value.to_str().unwrap());
        }
        text
    }

    fn spdy(purpose: Purpose, offered: &[&str]) -> String {
        let upgrade = [("connection", "keep-alive, UPGRADE"), ("upgrade", "spdy/3.1")];
        let offered = offered.iter().map(|name| ("x-stream-protocol-version", *name));
        check(purpose, &upgrade.into_iter().chain(offered).collect::<Vec<_>>())
    }

    fn websocket(purpose: Purpose, offered: &str) -> String {
        let mut lines = vec![
            ("connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            // The example of RFC 6455 §1.3.
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if !offered.is_empty() {
            lines.push(("sec-websocket-protocol", offered));
        }
        check(purpose, &lines)
    }

    #[test]
    fn of_what_a_spdy_client_offers_the_first_known_counts() {
        let offers: [&[&str]; 6] = [
            &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"],
            &["v3.channel.k8s.io, v4.channel.k8s.io"],
            &["v2.channel.k8s.io"],
            &["channel.k8s.io"],
            &["v5.channel.k8s.io", "portforward.k8s.io"],
            &["", " , "],
        ];
        let mut all: Vec<String> =
            offers.iter().map(|offered| spdy(Purpose::Command, offered)).collect();
        all.push(spdy(Purpose::Command, &[]));
        all.push(spdy(Purpose::Forward, &["portforward.k8s.io"]));
        all.push(spdy(Purpose::Forward, &["v4.channel.k8s.io"]));
        insta::assert_snapshot!(all.join("\n"), @r"
        101 SpdyCommand { resizes: true, form: Json }
          connection: Upgrade
          upgrade: SPDY/3.1
          x-stream-protocol-version: v4.channel.k8s.io
        101 SpdyCommand { resizes: true, form: Text }
          connection: Upgrade
          upgrade: SPDY/3.1
          x-stream-protocol-version: v3.channel.k8s.io
        101 SpdyCommand { resizes: false, form: Text }
          connection: Upgrade
          upgrade: SPDY/3.1
          x-stream-protocol-version: v2.channel.k8s.io
        101 SpdyCommand { resizes: false, form: Text }
          connection: Upgrade
          upgrade: SPDY/3.1
          x-stream-protocol-version: channel.k8s.io
        403 unable to upgrade: the client offers v5.channel.k8s.io, portforward.k8s.io, the server accepts v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, channel.k8s.io
          connection: close
          x-accepted-stream-protocol-versions: v4.channel.k8s.io
          x-accepted-stream-protocol-versions: v3.channel.k8s.io
          x-accepted-stream-protocol-versions: v2.channel.k8s.io
          x-accepted-stream-protocol-versions: channel.k8s.io
        400 unable to upgrade: the header x-stream-protocol-version is missing or empty
          connection: close
        400 unable to upgrade: the header x-stream-protocol-version is missing or empty
          connection: close
        101 SpdyForward
          connection: Upgrade
          upgrade: SPDY/3.1
          x-stream-protocol-version: portforward.k8s.io
        403 unable to upgrade: the client offers v4.channel.k8s.io, the server accepts portforward.k8s.io
          connection: close
          x-accepted-stream-protocol-versions: portforward.k8s.io
        ");
    }

    #[test]
    fn of_what_a_websocket_client_offers_the_first_known_counts() {
        let offers = [
            "v5.channel.k8s.io",
            "v9.channel.k8s.io, v4.channel.k8s.io, v5.channel.k8s.io",
            "v4.base64.channel.k8s.io",
            "channel.k8s.io",
            "base64.channel.k8s.io",
            "",
            "v3.channel.k8s.io, SPDY/3.1+portforward.k8s.io",
        ];
        let all = offers.map(|offered| websocket(Purpose::Command, offered));
        insta::assert_snapshot!(all.join("\n"), @r"
        101 SocketCommand { framing: Framing { coding: Binary, closes: true }, form: Json }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: v5.channel.k8s.io
        101 SocketCommand { framing: Framing { coding: Binary, closes: false }, form: Json }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: v4.channel.k8s.io
        101 SocketCommand { framing: Framing { coding: Base64, closes: false }, form: Json }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: v4.base64.channel.k8s.io
        101 SocketCommand { framing: Framing { coding: Binary, closes: false }, form: Text }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: channel.k8s.io
        101 SocketCommand { framing: Framing { coding: Base64, closes: false }, form: Text }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: base64.channel.k8s.io
        101 SocketCommand { framing: Framing { coding: Binary, closes: false }, form: Text }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
        403 none of the WebSocket protocols v3.channel.k8s.io, SPDY/3.1+portforward.k8s.io is known
          connection: close
        ");
    }

    #[test]
    fn ports_have_the_tunnel_and_the_fourth_versions() {
        let all = [
            "SPDY/3.1+portforward.k8s.io",
            "v4.channel.k8s.io",
            "v4.base64.channel.k8s.io",
            "",
            "v5.channel.k8s.io, channel.k8s.io, portforward.k8s.io",
        ]
        .map(|offered| websocket(Purpose::Forward, offered));
        insta::assert_snapshot!(all.join("\n"), @r"
        101 TunnelForward
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: SPDY/3.1+portforward.k8s.io
        101 SocketForward { framing: Framing { coding: Binary, closes: false } }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: v4.channel.k8s.io
        101 SocketForward { framing: Framing { coding: Base64, closes: false } }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
          sec-websocket-protocol: v4.base64.channel.k8s.io
        101 SocketForward { framing: Framing { coding: Binary, closes: false } }
          connection: Upgrade
          upgrade: websocket
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
        403 none of the WebSocket protocols v5.channel.k8s.io, channel.k8s.io, portforward.k8s.io is known
          connection: close
        ");
    }

    #[test]
    fn what_is_no_upgrade_is_told_what_is_missing() {
        let all = [
            check(Purpose::Command, &[]),
            check(Purpose::Command, &[("upgrade", "SPDY/3.1")]),
            check(Purpose::Command, &[("connection", "upgrade"), ("upgrade", "h2c")]),
            check(Purpose::Forward, &[("connection", "upgrade"), ("upgrade", "websocket")]),
            check(
                Purpose::Forward,
                &[
                    ("connection", "upgrade"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-version", "13"),
                ],
            ),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        400 unable to upgrade: the request has neither Upgrade: SPDY/3.1 nor Upgrade: websocket
          connection: close
        400 unable to upgrade: the request has neither Upgrade: SPDY/3.1 nor Upgrade: websocket
          connection: close
        400 unable to upgrade: the request has neither Upgrade: SPDY/3.1 nor Upgrade: websocket
          connection: close
        400 the WebSocket's version is not 13
          connection: close
          sec-websocket-version: 13
        400 the WebSocket's key is missing
          connection: close
        ");
    }
}
