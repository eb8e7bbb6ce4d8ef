//! Who looks at the console: anybody while access is not controlled, else whoever shows a token.
//!
//! A browser asks for a name and a password: the token is the password, and the name is not looked
//! at. Programs may send it as a bearer token.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_rpc::NodeError;
use quorate_rpc::token::Bearer;
use quorate_statemachine::access::{Noun, Verb, needs};
use serde_json::json;

use crate::access::{self, Guest};
use crate::config::Config;
use crate::core::Core;
use crate::origin::Caller;
use crate::shared::Shared;

const CHALLENGE: &str = "Basic realm=\"quorate: any name, a token as password\", charset=\"UTF-8\"";

/// Who looks. None where the node belongs to no cluster, and so has nothing to hide.
#[derive(Clone)]
pub struct Reader(Option<Arc<Guest>>);

impl Reader {
    /// Lets a request in, or says why not.
    pub async fn admit(shared: &Shared, headers: &HeaderMap) -> Result<Self, NodeError> {
        let Some(core) = shared.running() else {
            return Ok(Self(None));
        };
        let controlled = core.state.access().0.enabled;
        // While access is not controlled nobody asked for what a proxy may have put there.
        let token = match token_of(headers) {
            Err(_) if !controlled => None,
            token => token?,
        };
        if controlled && !tokens_stay_here(shared.config()) {
            return Err(NodeError::Unsafe {
                message: "access is controlled, and this port has no TLS and is not on loopback: \
                          a token would be read on the way; take a tunnel to a node whose \
                          listen.http is on loopback"
                    .to_owned(),
            });
        }
        let guest = Guest::showing(&core, token).await?;
        let reader = Self(Some(Arc::new(guest)));
        reader.caller(&core)?;
        Ok(reader)
    }

    /// Who it is now, if it may look at the cluster.
    pub fn caller(&self, core: &Core) -> Result<Caller, NodeError> {
        let caller = match &self.0 {
            Some(guest) => guest.caller()?,
            None => Caller::Anonymous,
        };
        let look = needs::whole(Noun::Cluster, Verb::Read);
        access::check(&core.state, &caller, look)?;
        Ok(caller)
    }
}

/// Whether whoever listens on the network cannot read what is shown on the HTTP port, or it was
/// said that nobody does.
fn tokens_stay_here(config: &Config) -> bool {
    super::is_loopback(super::host_of(&config.listen.http)) || config.security.insecure
}

/// The token of a request. What is no token is told without being shown.
fn token_of(headers: &HeaderMap) -> Result<Option<Bearer>, NodeError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().ok().and_then(|value| {
        let (scheme, shown) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(shown.trim().to_owned());
        }
        let basic = scheme.eq_ignore_ascii_case("basic");
        let pair = basic.then(|| STANDARD.decode(shown.trim()).ok())??;
        let pair = String::from_utf8(pair).ok()?;
        pair.split_once(':')
            .map(|(_, password)| password.to_owned())
    });
    let token = text.and_then(|text| Bearer::parse(&text).ok());
    token.map(Some).ok_or_else(|| NodeError::Unauthenticated {
        message: "the password is no token; give any name, and a token as the password".to_owned(),
    })
}

/// Why somebody is not let in, so that a browser asks for a token.
pub fn refused(error: &NodeError) -> Response {
    let text = Json(json!({"problem": error.to_string()}));
    match error {
        NodeError::Unauthenticated { .. } => {
            let challenge = [(header::WWW_AUTHENTICATE, CHALLENGE)];
            (StatusCode::UNAUTHORIZED, challenge, text).into_response()
        }
        NodeError::Refused(_) | NodeError::Unsafe { .. } => {
            (StatusCode::FORBIDDEN, text).into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}
