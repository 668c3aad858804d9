//! How an endpoint is connected to: TLS with its own roots and identities, proxies of the environment,
//! deadlines. Two HTTP clients, because nobody asks a proxy for what this node serves itself. Redirects are
//! followed by `client`, by its own rules.

use super::hop;
use crate::error::ImageError;
use crate::hosts::Endpoint;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, RequestBuilder, Url};
use shim_model::limits;
use std::net::SocketAddr;

/// HTTP clients for one endpoint.
#[derive(Debug)]
pub struct Http {
    proxied: reqwest::Client,
    /// Only an endpoint of this node may have us ask this node.
    direct: Option<reqwest::Client>,
}

impl Http {
    /// Reads the certificates that the endpoint names.
    pub fn open(endpoint: &Endpoint, host: &str) -> Result<Self, ImageError> {
        let broken = |error: reqwest::Error| ImageError::Client {
            host: host.to_owned(),
            said: innermost(&error),
        };
        let proxied = builder(endpoint, host)?.build().map_err(broken)?;
        let direct = if hop::is_this_node(&endpoint.base) {
            Some(builder(endpoint, host)?.no_proxy().build().map_err(broken)?)
        } else {
            None
        };
        Ok(Self { proxied, direct })
    }

    /// Begins a GET.
    pub fn get(&self, url: &Url) -> RequestBuilder {
        self.to(url).get(url.clone())
    }

    /// Begins a POST.
    pub fn post(&self, url: &Url) -> RequestBuilder {
        self.to(url).post(url.clone())
    }

    fn to(&self, url: &Url) -> &reqwest::Client {
        match &self.direct {
            Some(direct) if hop::is_this_node(url) => direct,
            Some(_) | None => &self.proxied,
        }
    }
}

fn builder(endpoint: &Endpoint, host: &str) -> Result<ClientBuilder, ImageError> {
    let broken = |said: String| ImageError::Client { host: host.to_owned(), said };
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(endpoint.dial.unwrap_or(limits::REGISTRY_CONNECT))
        .read_timeout(limits::REGISTRY_STALL)
        .tls_danger_accept_invalid_certs(endpoint.skip_verify)
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(std::sync::Arc::new(Far));
    for path in &endpoint.ca {
        let pem = std::fs::read(path).map_err(ImageError::file("read", path))?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem);
        let roots = roots.map_err(|e| broken(format!("{}: {}", path.display(), innermost(&e))))?;
        if roots.is_empty() {
            return Err(broken(format!("{} holds no certificate", path.display())));
        }
        for root in roots {
            builder = builder.add_root_certificate(root);
        }
    }
    for (certificate, key) in &endpoint.client {
        let mut pem = std::fs::read(certificate).map_err(ImageError::file("read", certificate))?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(std::fs::read(key).map_err(ImageError::file("read", key))?);
        }
        let identity = reqwest::Identity::from_pem(&pem);
        let told = |error| broken(format!("{}: {}", certificate.display(), innermost(&error)));
        builder = builder.identity(identity.map_err(told)?);
    }
    Ok(builder)
}

/// The cause at the bottom. An error's own text may hold an address, and that may hold a secret.
pub fn innermost(error: &reqwest::Error) -> String {
    let mut said = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(next) = cause {
        said = next.to_string();
        cause = next.source();
    }
    if said.is_empty() { "the connection failed".to_owned() } else { said }
}

/// True for a certificate that is not accepted: another try will not change it.
pub fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(next) = cause {
        if let Some(tls) = next.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        // An io::Error names its content's cause as its own, so the content itself has to be asked for.
        let content = next.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match content {
            Some(content) => Some(content),
            None => next.source(),
        };
    }
    false
}

/// Names to addresses, but for those that a stranger's name must not lead to.
#[derive(Debug)]
struct Far;

impl Resolve for Far {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let far: Vec<SocketAddr> = found.filter(|to| !hop::is_link_local(to.ip())).collect();
            if far.is_empty() {
                return Err("the name leads to link-local addresses only".into());
            }
            let addresses: Addrs = Box::new(far.into_iter());
            Ok(addresses)
        })
    }
}
