//! Who is at the other end of a connection, as far as the connection itself shows it.
//!
//! Every request of every port has a [`Caller`] among its extensions. Who may do what is decided
//! elsewhere, from this and from what the request carries.

use std::net::SocketAddr;
use std::sync::Arc;

use quorate_rpc::certificate::Names;
use quorate_statemachine::limits::PRINCIPAL_BYTES_MAX;

use crate::origin;

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Where the connection comes from.
    pub address: Option<SocketAddr>,
    /// The certificate that it was made with, checked against the authority of this port; none
    /// without TLS, and none if the port takes clients without one.
    pub certificate: Option<Arc<Names>>,
}

impl Caller {
    /// Who it is to the cluster: the principal that its certificate names. The error says why no
    /// principal may be called so.
    pub fn principal(&self) -> Result<origin::Caller, String> {
        let Some(name) = self.certificate.as_ref().and_then(|names| names.client()) else {
            return Ok(origin::Caller::Anonymous);
        };
        origin::Caller::certified(name).ok_or_else(|| {
            format!(
                "a client's name (its certificate's common name, else its first URI) has 1 to \
                 {PRINCIPAL_BYTES_MAX} bytes and does not begin with \"embedded:\"; this one has \
                 {}: {name:?}",
                name.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(common_name: &str) -> Caller {
        let names = Names {
            common_name: Some(common_name.to_owned()),
            ..Names::default()
        };
        Caller {
            address: None,
            certificate: Some(Arc::new(names)),
        }
    }

    #[test]
    fn a_certificate_names_the_principal_and_none_names_nobody() {
        let named = origin::Caller::Named("ci".into());
        assert_eq!(shown("ci").principal(), Ok(named));
        let nobody = Caller::default().principal();
        assert_eq!(nobody, Ok(origin::Caller::Anonymous));
    }

    #[test]
    fn a_name_that_is_too_long_or_a_nodes_own_is_refused_with_it() {
        assert!(shown(&"x".repeat(128)).principal().is_ok());
        let long = shown(&"x".repeat(129)).principal().expect_err("too long");
        assert!(long.contains("has 129"), "{long}");
        let own = shown("embedded:n1").principal().expect_err("a node's own");
        assert!(own.contains("embedded:n1"), "{own}");
    }
}
