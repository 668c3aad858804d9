//! Proxies of the environment, as the pull worker inherits it: for HTTP and for HTTPS, not for hosts that
//! it names, never for this node. The registry's name leads nowhere, so only a proxy can have served it.

use crate::real_registry::open_with;
use crate::registry::{Lies, Registry};
use crate::support::{is_root, settings, tls, two_layers};
use crate::tls::{Authority, serve};
use shim_image::auth::Auth;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The registry's name; `.test` is nobody's (RFC 6761).
const NAME: &str = "registry.test:5000/app:1";

fn registry() -> Arc<Registry> {
    let registry = Registry::lying(Lies::default());
    registry.push("app", "1", &two_layers());
    Arc::new(registry)
}

fn configure(dir: &Path, text: &str) {
    let hosts = settings(dir).registry_config.join("registry.test:5000");
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
}

/// Pulls in a worker with these variables.
async fn pull(dir: &Path, name: &str, environment: &[String]) -> Result<(), String> {
    let (images, _pids) = open_with(dir, environment);
    images.pull(name, &Auth::Anonymous, None).await.map(|_| ()).map_err(|error| error.chain())
}

/// A proxy that only makes tunnels, all to this port; what it was asked.
async fn tunnels(to: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (client, _from) = listener.accept().await.unwrap();
            tokio::spawn(tunnel(client, to, Arc::clone(&seen)));
        }
    });
    (address, asked)
}

async fn tunnel(mut client: TcpStream, to: u16, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    let mut registry = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    client.write_all(b"HTTP/1.1 200 here you are\r\n\r\n").await.unwrap();
    drop(tokio::io::copy_bidirectional(&mut client, &mut registry).await);
}

#[tokio::test]
async fn root_a_proxy_is_asked_for_what_is_not_of_this_node() {
    if !is_root() {
        return;
    }
    // A server that takes whole addresses is a proxy.
    let proxy = registry();
    let variable = format!("HTTP_PROXY=http://{}", proxy.serve().await);
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "server = \"http://registry.test:5000\"\n");
    pull(dir.path(), NAME, std::slice::from_ref(&variable)).await.unwrap();
    let heard = proxy.heard();
    assert!(heard.len() >= 4);
    assert!(heard.iter().all(|asked| asked.host.as_deref() == Some("registry.test:5000")));

    // Asked itself, the name is nobody's; finding that out may take long.
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "server = \"http://registry.test:5000\"\ndial_timeout = \"200ms\"\n");
    let told =
        pull(dir.path(), NAME, &[variable.clone(), "NO_PROXY=registry.test".to_owned()]).await;
    assert!(told.unwrap_err().starts_with("RegistryUnavailable"));
    let own = registry();
    let name = format!("{}/app:1", own.serve().await);
    pull(dir.path(), &name, &[variable]).await.unwrap();
    assert_eq!(proxy.heard().len(), heard.len());
}

#[tokio::test]
async fn root_a_proxy_makes_a_tunnel_for_https() {
    if !is_root() {
        return;
    }
    tls();
    let dir = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(&dir.path().join("certificates")) else { return };
    authority.issue("server", "DNS:registry.test", 2);
    let own = registry();
    let port = serve(&own, authority.acceptor("server", false)).await;
    let (proxy, asked) = tunnels(port).await;
    let ca = authority.dir.join("ca.pem");
    configure(dir.path(), &format!("ca = \"{}\"\n", ca.display()));
    pull(dir.path(), NAME, &[format!("https_proxy=http://{proxy}")]).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|line| line == "CONNECT registry.test:5000 HTTP/1.1"), "{asked:?}");
}
