//! Registries over HTTPS with certificates of a root of our own: which are accepted and which end a pull
//! before a byte of it, identities of clients, and that nothing ever falls back to a weaker transport.
//! Relies on the program `openssl` to make certificates.

use crate::registry::{Lies, Registry, basic};
use crate::support::{is_root, settings, skipped, tls, two_layers};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shim_image::auth::Auth;
use shim_image::error::ImageError;
use shim_image::pull::{Pulled, Puller};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A folder of certificates: `ca.pem`, and what was issued by it.
pub(crate) struct Authority {
    pub(crate) dir: PathBuf,
}

fn openssl(dir: &Path, arguments: &[&str]) -> bool {
    let done = Command::new("openssl").args(arguments).current_dir(dir).output();
    let Ok(done) = done else { return false };
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    true
}

impl Authority {
    /// `None`, said aloud, where no certificate can be made.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let made = openssl(
            dir,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
                "-days",
                "2",
                "-subj",
                "/CN=a test's root",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ],
        );
        if !made {
            skipped("openssl is not installed");
            return None;
        }
        Some(Self { dir: dir.to_owned() })
    }

    /// Issues `NAME.pem` and `NAME.key` for these names, for so many days from now.
    pub(crate) fn issue(&self, name: &str, names: &str, days: i32) {
        let file = |end: &str| format!("{name}.{end}");
        let (key, request) = (file("key"), file("csr"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let subject = ["-keyout", &key, "-out", &request, "-subj", "/CN=a test"];
        openssl(&self.dir, &[&new[..], &subject].concat());
        std::fs::write(self.dir.join(file("ext")), format!("subjectAltName={names}\n")).unwrap();
        let (days, out, extra) = (days.to_string(), file("pem"), file("ext"));
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key"];
        let how = ["-CAcreateserial", "-days", &days, "-out", &out, "-extfile", &extra];
        openssl(&self.dir, &[&sign[..], &how].concat());
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.pem")).unwrap()).unwrap();
        Arc::new(roots)
    }

    pub(crate) fn acceptor(&self, name: &str, asks_clients: bool) -> TlsAcceptor {
        let builder = rustls::ServerConfig::builder();
        let builder = if asks_clients {
            let verifier = rustls::server::WebPkiClientVerifier::builder(self.roots()).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain =
            vec![CertificateDer::from_pem_file(self.dir.join(format!("{name}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{name}.key"))).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

/// Connections that were greeted.
struct Greeted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Greeted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (connection, from) = self.listener.accept().await.unwrap();
            if let Ok(greeted) = self.acceptor.accept(connection).await {
                return (greeted, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves a registry with a certificate; its port.
pub(crate) async fn serve(registry: &Arc<Registry>, acceptor: TlsAcceptor) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = registry.app(&format!("https://127.0.0.1:{port}"));
    tokio::spawn(async move { axum::serve(Greeted { listener, acceptor }, app).await.unwrap() });
    port
}

/// What a test needs: a root, a registry with `app:1`, a store.
struct Scene {
    dir: tempfile::TempDir,
    authority: Authority,
    registry: Arc<Registry>,
}

impl Scene {
    fn new(lies: Lies) -> Option<Self> {
        tls();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(&dir.path().join("certificates"))?;
        authority.issue("server", "IP:127.0.0.1", 2);
        let registry = Registry::lying(lies);
        registry.push("app", "1", &two_layers());
        Some(Self { dir, authority, registry: Arc::new(registry) })
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.authority.acceptor("server", false)
    }

    /// Pulls `registry.test/app:1`, which is at this port, with these lines in the host's table.
    async fn pull(&self, port: u16, lines: &str, auth: &Auth) -> Result<Pulled, ImageError> {
        let settings = settings(self.dir.path());
        let hosts = settings.registry_config.join("registry.test");
        std::fs::create_dir_all(&hosts).unwrap();
        let text = format!("server = \"https://127.0.0.1:{port}\"\n{lines}\n");
        std::fs::write(hosts.join("hosts.toml"), text).unwrap();
        let (tell, _heard) = tokio::sync::mpsc::unbounded_channel();
        Puller::open(settings).unwrap().pull("registry.test/app:1", auth, tell).await
    }

    /// A line with a path among the certificates.
    fn line(&self, key: &str, file: &str) -> String {
        format!("{key} = \"{}\"", self.authority.dir.join(file).display())
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("store/layers")).unwrap().count()
    }
}

fn someone() -> Auth {
    Auth::Basic { user: "me".into(), password: "secret".into() }
}

#[tokio::test]
async fn root_a_root_of_our_own_is_trusted_where_it_is_named() {
    let Some(scene) = is_root().then(|| Scene::new(Lies::default())).flatten() else { return };
    let port = serve(&scene.registry, scene.acceptor()).await;
    let refused = scene.pull(port, "", &someone()).await.unwrap_err();
    assert!(matches!(refused, ImageError::Client { .. }), "{refused:?}");
    assert!(refused.chain().contains("certificate"), "{}", refused.chain());
    // Not a byte was asked for, neither here nor without TLS.
    assert!(scene.registry.heard().is_empty());
    let pulled = scene.pull(port, &scene.line("ca", "ca.pem"), &someone()).await;
    assert_eq!(pulled.map_err(|error| error.chain()).unwrap().chain.len(), 2);
    assert_eq!(scene.layers(), 2);
}

#[tokio::test]
async fn root_a_certificate_that_is_over_or_for_another_is_refused() {
    let Some(scene) = is_root().then(|| Scene::new(Lies::default())).flatten() else { return };
    scene.authority.issue("other", "DNS:other.test", 2);
    scene.authority.issue("over", "IP:127.0.0.1", -1);
    let ca = scene.line("ca", "ca.pem");
    for (name, word) in [("other", "not valid for"), ("over", "Expired")] {
        let port = serve(&scene.registry, scene.authority.acceptor(name, false)).await;
        let refused = scene.pull(port, &ca, &someone()).await.unwrap_err().chain();
        assert!(refused.contains(word), "{name}: {refused}");
    }
    assert!(scene.registry.heard().is_empty());
    // A person may say that this does not matter.
    let port = serve(&scene.registry, scene.authority.acceptor("over", false)).await;
    scene.pull(port, "skip_verify = true", &Auth::Anonymous).await.unwrap();
}

#[tokio::test]
async fn root_a_registry_may_ask_who_the_client_is() {
    let Some(scene) = is_root().then(|| Scene::new(Lies::default())).flatten() else { return };
    scene.authority.issue("client", "DNS:node.test", 2);
    let port = serve(&scene.registry, scene.authority.acceptor("server", true)).await;
    let ca = scene.line("ca", "ca.pem");
    assert!(scene.pull(port, &ca, &Auth::Anonymous).await.is_err());
    assert!(scene.registry.heard().is_empty());
    let at = |file: &str| scene.authority.dir.join(file).display().to_string();
    let pair = format!("client = [[\"{}\", \"{}\"]]", at("client.pem"), at("client.key"));
    scene.pull(port, &format!("{ca}\n{pair}"), &Auth::Anonymous).await.unwrap();
    // Certificate and key in one file, and a file that is none.
    let both = [at("client.pem"), at("client.key")].map(|file| std::fs::read(file).unwrap());
    std::fs::write(at("both.pem"), both.concat()).unwrap();
    let both = format!("{ca}\n{}", scene.line("client", "both.pem"));
    scene.pull(port, &both, &Auth::Anonymous).await.unwrap();
    std::fs::write(at("none.pem"), "no certificate").unwrap();
    let none = format!("{ca}\n{}", scene.line("client", "none.pem"));
    let told = scene.pull(port, &none, &Auth::Anonymous).await.unwrap_err().chain();
    assert!(told.contains("none.pem"), "{told}");
}

#[tokio::test]
async fn root_nothing_leads_from_https_to_http() {
    let Some(weaker) = is_root().then(|| Scene::new(Lies::default())).flatten() else { return };
    let plain = format!("http://{}", weaker.registry.serve().await);
    for lies in [
        Lies { redirects_to: Some(plain.clone()), ..Lies::default() },
        Lies { realm: Some(format!("{plain}/token")), ..Lies::default() },
    ] {
        let Some(scene) = Scene::new(lies) else { return };
        let port = serve(&scene.registry, scene.acceptor()).await;
        let ca = scene.line("ca", "ca.pem");
        let told = scene.pull(port, &ca, &someone()).await.unwrap_err().chain();
        assert!(told.contains("https to http") || told.contains("without TLS"), "{told}");
        assert_eq!(scene.layers(), 0);
    }
    assert!(weaker.registry.heard().is_empty());
}

#[tokio::test]
async fn root_a_registry_with_tls_gets_its_password_and_its_storage_does_not() {
    let Some(store) = is_root().then(|| Scene::new(Lies::default())).flatten() else { return };
    let storage = serve(&store.registry, store.acceptor()).await;
    let known = Some(("me".to_owned(), "secret".to_owned()));
    let lies = Lies {
        token_for: known,
        redirects_to: Some(format!("https://127.0.0.1:{storage}")),
        ..Lies::default()
    };
    let Some(mut scene) = Scene::new(lies) else { return };
    // Both have one root.
    scene.authority = Authority { dir: store.authority.dir.clone() };
    let port = serve(&scene.registry, store.acceptor()).await;
    let ca = scene.line("ca", "ca.pem");
    scene.pull(port, &ca, &someone()).await.unwrap();
    let asked = scene.registry.heard();
    let token = asked.iter().find(|asked| asked.path == "/token").unwrap();
    assert_eq!(token.authorization, Some(basic("me", "secret")));
    let layer = asked.iter().find(|asked| asked.path.contains("/blobs/")).unwrap();
    assert_eq!(layer.authorization.as_deref(), Some("Bearer good-token"));
    let led = store.registry.heard();
    assert!(led.len() >= 3 && led.iter().all(|asked| asked.authorization.is_none()), "{led:?}");
}
