//! TLS of the streaming server. Owns reading certificate, key and the authority of clients from files, and
//! reading them again when one of them changed: a renewed certificate needs no restart, and one that
//! cannot be read leaves the old one in use. Relies on the files being ours.

use crate::error::DaemonError;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, crypto::CryptoProvider};
use shim_runtime::error::chain;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;

/// Where the parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Who must have signed a client's certificate; `None` = clients need none.
    pub(crate) client_ca: Option<PathBuf>,
}

/// What is in use, and from when its files were.
pub(crate) struct Tls {
    files: TlsFiles,
    // Locked while small files are read, never over an await.
    current: Mutex<(Vec<Option<SystemTime>>, TlsAcceptor)>,
}

impl Tls {
    /// Reads the files; here a mistake is refused.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, DaemonError> {
        let current = Mutex::new((stamps(&files), load(&files)?));
        Ok(Self { files, current })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != current.0 {
            current.0 = now;
            match load(&self.files) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
                    current.1 = acceptor;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "the certificate stays as it was");
                }
            }
        }
        current.1.clone()
    }
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<SystemTime>> {
    files.all().map(|path| path.metadata().ok()?.modified().ok()).collect()
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor, DaemonError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: rustls::pki_types::pem::Error| DaemonError::Pem { path, source }
    };
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, DaemonError> {
        let certificates = CertificateDer::pem_file_iter(path).map_err(failed(path))?;
        certificates.collect::<Result<_, _>>().map_err(failed(path))
    };
    let chain = read(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    let clients = files.client_ca.as_deref().map(read).transpose()?;
    let config = configure(chain, key, clients.as_deref())
        .map_err(|source| DaemonError::Tls { path: files.certificate.clone(), source })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<&[CertificateDer<'static>]>,
) -> Result<ServerConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key)
}
