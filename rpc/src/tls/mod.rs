//! TLS for both ends: files, who is a node, and connections that are made.
//!
//! TLS 1.3 with ring, nothing else. Sessions are never resumed: a certificate is looked at in every
//! handshake, so that a changed authority counts for the next connection.

mod connect;
mod files;
mod verify;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

pub use connect::{Connector, Source, Stream, refusal_frames};
pub use files::{Identity, TlsError, authorities, certificates, read_file};
pub use verify::{NodeVerifier, not_a_node};

/// What HTTP/2 is called in a handshake.
pub const ALPN: &[u8] = b"h2";

/// The one version.
pub const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The one implementation of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The files of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities of the nodes' certificates.
    pub ca: PathBuf,
    /// Its own certificate and private key; none for a client that shows none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// TLS of a client. Its files are read again for each connection, so that a client that lives long
/// follows their renewal; while they cannot be used, what was read last is.
#[derive(Clone)]
pub struct ClientTls {
    files: Arc<ClientFiles>,
    last: Arc<Mutex<Arc<ClientConfig>>>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

impl ClientTls {
    /// Reads the files.
    pub fn read(files: ClientFiles) -> Result<Self, TlsError> {
        let config = Arc::new(files.config()?);
        Ok(Self {
            files: Arc::new(files),
            last: Arc::new(Mutex::new(config)),
        })
    }

    /// Makes connections with it.
    #[must_use]
    pub fn connector(&self) -> Connector {
        let this = self.clone();
        Connector::tls(Arc::new(move || this.current()))
    }

    fn current(&self) -> Arc<ClientConfig> {
        let read = self.files.config();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(config) => *last = Arc::new(config),
            Err(error) => tracing::warn!(%error, "goes on with what was read before"),
        }
        Arc::clone(&last)
    }
}

impl ClientFiles {
    fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = authorities(&self.ca)?;
        let identity = self.identity.as_ref();
        let identity = identity.map(|(cert, key)| Identity::read(cert, key));
        client_config(roots, identity.transpose()?)
    }
}

/// The calling side, which checks that the called host is in the certificate.
fn client_config(
    roots: Arc<RootCertStore>,
    identity: Option<Identity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots);
    Ok(finish(match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key, files }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| Identity::problem(files, &error))?,
    }))
}

/// The calling side between nodes.
pub fn node_config(verifier: NodeVerifier, identity: Identity) -> Result<ClientConfig, TlsError> {
    let Identity { chain, key, files } = identity;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(|error| Identity::problem(files, &error))?;
    Ok(finish(config))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}
