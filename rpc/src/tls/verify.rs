//! Whether a certificate is a node's: checked by whoever calls a node and by the one called.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::provider;
use crate::certificate::{Certificate, Names};

/// Why `names` are not those of a node of this cluster; none if they are. They are if they have
/// the URI of a node in the trust domain `domain`, or one of `hosts`. Without a domain of its own
/// a node takes nodes of any that its authority signed.
#[must_use]
pub fn not_a_node(names: &Names, domain: Option<&str>, hosts: &[String]) -> Option<String> {
    if hosts.iter().any(|host| names.has_host(host)) {
        return None;
    }
    match (names.node(), domain) {
        (Some(_), None) => None,
        (Some((theirs, _)), Some(own)) if theirs == own => None,
        (Some((theirs, name)), Some(own)) => Some(format!(
            "the certificate is of node {name:?} of trust domain {theirs:?}, and this one is of \
             {own:?}"
        )),
        (None, _) => Some(format!(
            "the certificate ({names}) is not a node's: it has neither the URI \
             spiffe://{}/node/NAME nor the host of a node (of a member, or in tls.peer_hosts)",
            domain.unwrap_or("DOMAIN")
        )),
    }
}

/// Checks the certificate of a node that is called.
#[derive(Debug)]
pub struct NodeVerifier {
    roots: Arc<RootCertStore>,
    domain: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl NodeVerifier {
    /// Nodes whose certificates `roots` signed, of this trust domain if one is given.
    #[must_use]
    pub fn new(roots: Arc<RootCertStore>, domain: Option<String>) -> Self {
        Self {
            roots,
            domain,
            provider: provider(),
        }
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = &self.roots;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let names = Certificate::parse(end_entity).map_err(bad)?.names;
        let host = server_name.to_str().into_owned();
        match not_a_node(&names, self.domain.as_deref(), &[host]) {
            None => Ok(ServerCertVerified::assertion()),
            Some(problem) => Err(Error::General(problem)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered.
        Err(PeerMisbehaved::SelectedUnofferedCipherSuite.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uri: &str, dns: &str) -> Names {
        Names {
            uri: vec![uri.to_owned()],
            dns: vec![dns.to_owned()],
            ..Names::default()
        }
    }

    #[test]
    fn a_node_is_known_by_its_uri_or_by_its_host() {
        let node = named("spiffe://q/node/n1", "a");
        assert_eq!(not_a_node(&node, Some("q"), &[]), None);
        assert_eq!(not_a_node(&node, None, &[]), None);
        let other = not_a_node(&node, Some("p"), &[]).expect("another domain");
        assert!(
            other.contains("\"q\"") && other.contains("\"p\""),
            "{other}"
        );
        let client = named("spiffe://q/client/c", "a");
        let refused = not_a_node(&client, Some("q"), &["b".to_owned()]).expect("no node");
        assert!(refused.contains("not a node's"), "{refused}");
        assert_eq!(not_a_node(&client, Some("q"), &["a".to_owned()]), None);
    }
}
