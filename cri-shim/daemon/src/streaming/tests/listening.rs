//! The server with real sockets: what it answers to requests of every kind, that a URL is good once, TLS,
//! and how many may come.

use super::client::{Client, Said};
use super::programs::Programs;
use super::{ALL, SUCCESS, exec};
use crate::error::DaemonError;
use crate::streaming::server::{Server, Settings};
use crate::streaming::spdy::frame::tests::syn;
use crate::streaming::spdy::headers::tests::Deflater;
use crate::streaming::tls::TlsFiles;
use crate::streaming::token::Ask;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use shim_model::kind::Kind;
use shim_model::limits;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const UPGRADE: &str = "Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                       X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

pub(super) async fn server(tls: Option<TlsFiles>) -> (Server, Arc<Programs>) {
    let programs = Arc::new(Programs::default());
    let address = "127.0.0.1:0".parse().unwrap();
    let settings = Settings { address, idle: limits::STREAM_IDLE, tls };
    (Server::start(settings, Arc::clone(&programs)).await.expect("a server"), programs)
}

/// `http://127.0.0.1:1/exec/x` → `127.0.0.1:1`, `/exec/x`.
fn parts(url: &str) -> (String, String) {
    let rest = url.split_once("://").expect("a scheme").1;
    let (host, path) = rest.split_once('/').expect("a path");
    (host.to_owned(), format!("/{path}"))
}

/// Sends a request's head and gives the answer's head, and the connection behind it.
async fn ask<S>(mut io: S, method: &str, path: &str, headers: &str, more: &[u8]) -> (String, S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = format!("{method} {path} HTTP/1.1\r\nHost: any.where\r\n{headers}\r\n");
    io.write_all(&[head.as_bytes(), more].concat()).await.expect("it listens");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(octet) => answer.push(octet),
            Err(_) => break,
        }
    }
    (String::from_utf8(answer).expect("text"), io)
}

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(parts(url).0).await.expect("it listens")
}

async fn upgraded(url: &str, method: &str) -> Client<TcpStream> {
    let (answer, io) = ask(connect(url).await, method, &parts(url).1, UPGRADE, b"").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let lines: Vec<&str> = answer.lines().collect();
    for line in
        ["connection: Upgrade", "upgrade: SPDY/3.1", "x-stream-protocol-version: v4.channel.k8s.io"]
    {
        assert!(lines.contains(&line), "{line} is missing in {answer}");
    }
    Client::new(io)
}

#[tokio::test]
async fn a_url_is_good_once_with_get_and_with_post() {
    let (server, programs) = server(None).await;
    for method in ["GET", "POST"] {
        let url = server.url(exec("say hello x", ALL)).unwrap();
        assert!(url.starts_with("http://127.0.0.1:") && url.contains("/exec/"), "{url}");
        let mut client = upgraded(&url, method).await;
        client.make(ALL).await;
        let heard = client.rest().await;
        assert_eq!(
            (heard["stdout"].text().as_str(), heard["error"].text().as_str()),
            ("hello", SUCCESS)
        );
        let (answer, _) = ask(connect(&url).await, method, &parts(&url).1, UPGRADE, b"").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    assert_eq!(programs.running(), 0);
}

#[tokio::test]
async fn a_real_program_is_run_with_all_its_streams() {
    let (server, programs) = server(None).await;
    let url = server.url(exec("sh -c tr a-z A-Z; echo oops >&2; exit 3", ALL)).unwrap();
    let mut client = upgraded(&url, "POST").await;
    client.make(ALL).await;
    client.send("stdin", b"words").await;
    client.end("stdin").await;
    let heard = client.rest().await;
    assert_eq!(
        (heard["stdout"].text().as_str(), heard["stderr"].text().as_str()),
        ("WORDS", "oops\n")
    );
    assert_eq!(heard["error"].text(), super::code(3));
    drop(client);
    // A client that leaves takes its program along.
    let url = server.url(exec("sh -c sleep 999", ALL)).unwrap();
    let mut client = upgraded(&url, "POST").await;
    client.make(ALL).await;
    until(|| programs.running() == 1).await;
    drop(client);
    until(|| programs.running() == 0).await;
}

/// Waits for what will be.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn frames_may_come_with_the_request() {
    let (server, _) = server(None).await;
    let url = server.url(exec("exit 0", ALL)).unwrap();
    let zlib = &mut Deflater::new();
    let frame = syn(zlib, 1, 0, &[("streamtype", "error")]);
    let (answer, io) = ask(connect(&url).await, "POST", &parts(&url).1, UPGRADE, &frame).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(Client::new(io).read().await, Said::Reply(1));
}

#[tokio::test]
async fn nothing_else_is_served_and_nobody_is_sent_elsewhere() {
    let (server, _) = server(None).await;
    let new = || server.url(exec("exit 0", ALL)).unwrap();
    let forwards = server.url(Ask::Forward { sandbox: "s".to_owned(), ports: vec![] }).unwrap();
    let token = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let base = new();
    for (method, path, headers, status) in [
        ("GET", "/".to_owned(), UPGRADE, 404),
        ("GET", "/exec/".to_owned(), UPGRADE, 404),
        ("GET", "/exec/AAAA".to_owned(), UPGRADE, 404),
        ("GET", format!("/attach/{}", token(&new())), UPGRADE, 404),
        ("GET", format!("/exec/{}/x", token(&new())), UPGRADE, 404),
        ("GET", format!("//exec/{}", token(&new())), UPGRADE, 404),
        ("PUT", format!("/exec/{}", token(&new())), UPGRADE, 405),
        ("GET", format!("/exec/{}", token(&new())), "", 400),
        ("GET", format!("/exec/{}?command=sh", token(&new())), UPGRADE, 101),
        ("GET", format!("/portforward/{}", token(&forwards)), socket, 400),
    ] {
        let (answer, _) = ask(connect(&base).await, method, &path, headers, b"").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
    let long = format!("X: {}\r\n", "y".repeat(limits::STREAM_REQUEST_BYTES));
    let (answer, _) = ask(connect(&base).await, "GET", "/exec/x", &long, b"").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let many = "X: y\r\n".repeat(limits::STREAM_REQUEST_HEADERS + 1);
    let (answer, _) = ask(connect(&base).await, "GET", "/exec/x", &many, b"").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn one_container_has_so_many_streams() {
    let (server, programs) = server(None).await;
    let mut clients = Vec::new();
    for _ in 0..limits::STREAM_SESSIONS_EACH {
        let url = server.url(exec("sleep", ALL)).unwrap();
        clients.push(upgraded(&url, "GET").await);
    }
    let url = server.url(exec("sleep", ALL)).unwrap();
    let (answer, _) = ask(connect(&url).await, "GET", &parts(&url).1, UPGRADE, b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let Ask::Exec { command, streams, .. } = exec("exit 0", ALL) else { panic!() };
    let other = server.url(Ask::Exec { container: "d".to_owned(), command, streams }).unwrap();
    drop(upgraded(&other, "GET").await);
    for client in &mut clients {
        client.make(ALL).await;
    }
    until(|| programs.running() == clients.len()).await;
    clients.clear();
    until(|| programs.running() == 0).await;
    let url = server.url(exec("exit 0", ALL)).unwrap();
    drop(upgraded(&url, "GET").await);
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_nobody_out() {
    let (server, _) = server(None).await;
    let mut silent = Vec::new();
    let base = server.url(exec("exit 0", ALL)).unwrap();
    for _ in 0..2 * limits::STREAM_STRANGERS {
        silent.push(connect(&base).await);
    }
    let url = server.url(exec("say hello x", ALL)).unwrap();
    let served = async {
        let mut client = upgraded(&url, "GET").await;
        client.make(ALL).await;
        client.rest().await
    };
    let heard = tokio::time::timeout(limits::STREAM_REQUEST / 2, served).await.expect("served");
    assert_eq!(heard["stdout"].text(), "hello");
}

#[tokio::test]
async fn so_many_urls_wait_and_no_more() {
    let (server, _) = server(None).await;
    for _ in 0..limits::STREAM_TOKENS {
        server.url(exec("exit 0", ALL)).unwrap();
    }
    let refused = server.url(exec("exit 0", ALL)).unwrap_err();
    assert_eq!(refused.kind(), Kind::NoRoom);
}

#[tokio::test]
async fn streams_end_with_their_server() {
    let (server, programs) = server(None).await;
    let mut client = upgraded(&server.url(exec("sleep", ALL)).unwrap(), "GET").await;
    client.make(ALL).await;
    until(|| programs.running() == 1).await;
    drop(server);
    until(|| programs.running() == 0).await;
    while client.read().await != Said::Close {}
}

// === TLS ===

fn certificate(folder: &Path, name: &str) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let files = TlsFiles {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        client_ca: None,
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// A connection that trusts what the file holds now.
async fn trusting(
    url: &str,
    files: &TlsFiles,
    name: &'static str,
) -> Option<impl AsyncRead + AsyncWrite + Unpin> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name).unwrap();
    connector.connect(name, connect(url).await).await.ok()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path(), "old.example");
    let (server, _) = server(Some(files.clone())).await;
    let url = server.url(exec("say hello x", ALL)).unwrap();
    assert!(url.starts_with("https://"), "{url}");
    let io = trusting(&url, &files, "old.example").await.expect("a handshake");
    let (answer, io) = ask(io, "GET", &parts(&url).1, UPGRADE, b"").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut client = Client::new(io);
    client.make(ALL).await;
    assert_eq!(client.rest().await["stdout"].text(), "hello");
    let kept = std::fs::read(&files.certificate).unwrap();
    std::fs::write(&files.certificate, "nothing").unwrap();
    std::fs::write(folder.path().join("kept.pem"), kept).unwrap();
    let old = TlsFiles { certificate: folder.path().join("kept.pem"), ..files.clone() };
    assert!(trusting(&url, &old, "old.example").await.is_some());
    certificate(folder.path(), "new.example");
    assert!(trusting(&url, &files, "new.example").await.is_some());
    assert!(trusting(&url, &old, "old.example").await.is_none());
}

#[tokio::test]
async fn clients_without_a_certificate_of_the_authority_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = certificate(folder.path(), "a.example");
    files.client_ca = Some(files.certificate.clone());
    let (server, _) = server(Some(files.clone())).await;
    let url = server.url(exec("exit 0", ALL)).unwrap();
    // The refusal comes with the first answer: TLS 1.3's client is done before it.
    if let Some(mut io) = trusting(&url, &files, "a.example").await {
        let head = format!("GET {} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n", parts(&url).1);
        drop(io.write_all(head.as_bytes()).await);
        let mut answer = Vec::new();
        assert!(io.read_to_end(&mut answer).await.is_err() && answer.is_empty());
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = certificate(folder.path(), "a.example");
    files.key = files.certificate.clone();
    let address = "127.0.0.1:0".parse().unwrap();
    let settings = Settings { address, idle: limits::STREAM_IDLE, tls: Some(files) };
    let refused = Server::start(settings, Arc::new(Programs::default())).await.unwrap_err();
    assert!(matches!(refused, DaemonError::Pem { .. }), "{refused}");
}
