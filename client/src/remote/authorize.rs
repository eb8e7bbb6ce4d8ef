//! Shows a token with every call.

use std::net::IpAddr;

use quorate_rpc::token::{AUTHORIZATION, Bearer};
use quorate_statemachine::InvalidArgument;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A token that is shown to nodes with every call: over TLS, or on this machine. Whoever reads it
/// on the way can do all that its user may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    token: Bearer,
    in_the_clear: bool,
}

impl From<Bearer> for Credential {
    fn from(token: Bearer) -> Self {
        Self {
            token,
            in_the_clear: false,
        }
    }
}

impl Credential {
    /// The same, and without TLS it goes to other machines as well.
    #[must_use]
    pub fn in_the_clear(self) -> Self {
        Self {
            in_the_clear: true,
            ..self
        }
    }

    /// Refuses to show it where others can read it.
    fn check(&self, address: &str, tls: bool) -> Result<(), InvalidArgument> {
        if tls || self.in_the_clear || is_loopback(address) {
            return Ok(());
        }
        Err(InvalidArgument::new(
            "token",
            "would go over the network without TLS, and was not sent",
            "TLS (--cacert), an address of this machine, or --insecure-token",
            address,
        ))
    }
}

/// Whether `host:port` is on this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// A channel on which every call shows the token, if there is one.
pub(crate) type Authorized = InterceptedService<Channel, Authorize>;

/// Puts the token into a call.
#[derive(Clone)]
pub(crate) struct Authorize(Option<MetadataValue<Ascii>>);

impl Authorize {
    /// For calls to `address`.
    pub(crate) fn at(
        credential: Option<&Credential>,
        address: &str,
        tls: bool,
    ) -> Result<Self, InvalidArgument> {
        if let Some(credential) = credential {
            credential.check(address, tls)?;
        }
        Ok(Self(credential.map(|it| it.token.to_metadata())))
    }

    /// Calls on `channel` show the token.
    pub(crate) fn on(self, channel: Channel) -> Authorized {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_a_token_stays_on_this_machine_unless_it_may_go() {
        let credential = Credential::from(Bearer::mint().expect("random numbers"));
        for here in ["127.0.0.1:7400", "localhost:1", "[::1]:7400", "127.0.0.2:1"] {
            assert_eq!(credential.check(here, false), Ok(()), "{here}");
        }
        for there in [
            "10.0.0.1:7400",
            "db.example:7400",
            "[2001:db8::1]:1",
            "localhost.evil:1",
        ] {
            let refused = credential.check(there, false).expect_err(there);
            assert_eq!((&*refused.field, &*refused.actual), ("token", there));
            assert_eq!(credential.check(there, true), Ok(()), "{there}");
            let told = credential.clone().in_the_clear();
            assert_eq!(told.check(there, false), Ok(()), "{there}");
        }
    }
}
