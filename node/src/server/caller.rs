//! Who is at the other end of a connection, as far as the connection itself shows it.
//!
//! Every request of every port has a [`Caller`] among its extensions. Who may do what is decided
//! elsewhere, from this and from what the request carries.

use std::net::SocketAddr;
use std::sync::Arc;

use quorate_rpc::certificate::Names;

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Where the connection comes from.
    pub address: Option<SocketAddr>,
    /// The certificate that it was made with, checked against the authority of this port; none
    /// without TLS, and none if the port takes clients without one.
    pub certificate: Option<Arc<Names>>,
}
