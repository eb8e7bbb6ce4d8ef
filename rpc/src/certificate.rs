//! What a certificate says of its owner.

use std::net::IpAddr;

/// The names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// DNS names, some with `*.` in front.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
    /// URIs, as `spiffe://quorate/node/n1`.
    pub uri: Vec<String>,
}
