//! From the global flags to a client.

use quorate_client::admin::Admin;
use quorate_client::{
    Bearer, Client, ClientFiles, ClientTls, Consistency, Credential, ReadFrom, Remote,
    RemoteOptions, Trace,
};

use crate::args::{Global, ReadConsistency};
use crate::exit::{Exit, Failure};

/// A client of the cluster.
pub fn client(global: &Global) -> Result<Client, Failure> {
    client_at(global, &global.endpoints)
}

/// A client that knows these endpoints only.
pub fn client_at(global: &Global, endpoints: &[String]) -> Result<Client, Failure> {
    let (consistency, read_from) = match global.consistency {
        ReadConsistency::Linearizable => (Consistency::Linearizable, ReadFrom::Leader),
        ReadConsistency::Lease => (Consistency::Lease, ReadFrom::Leader),
        ReadConsistency::Stale => (Consistency::Stale { max_lag_ms: None }, ReadFrom::AnyNode),
    };
    let options = RemoteOptions {
        read_from,
        tls: tls(global)?,
        credential: credential(global)?,
        ..RemoteOptions::default()
    };
    let remote = Remote::new(trimmed(endpoints), options)?;
    let client = Client::new(remote)
        .with_timeout(global.call_timeout())
        .with_consistency(consistency);
    Ok(match trace() {
        Some(trace) => client.traced(trace),
        None => client,
    })
}

/// The trace in which this command runs, as its caller tells it in `TRACEPARENT`. What cannot be
/// read is ignored, as W3C Trace Context wants it.
fn trace() -> Option<Trace> {
    Trace::from_traceparent(&std::env::var("TRACEPARENT").ok()?)
}

/// Administration of the cluster.
pub fn admin(global: &Global) -> Result<Admin, Failure> {
    let admin = Admin::connect_with(trimmed(&global.endpoints), tls(global)?)?;
    let admin = admin.with_timeout(global.call_timeout());
    Ok(match credential(global)? {
        Some(credential) => admin.with_token(credential),
        None => admin,
    })
}

/// TLS, if certificates of an authority are given.
fn tls(global: &Global) -> Result<Option<ClientTls>, Failure> {
    let identity = global.cert.clone().zip(global.key_file.clone());
    let files = match (&global.cacert, identity) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            let message = "--cert needs --cacert, the authority of the nodes' certificates: \
                           without it nobody knows who is at the other end";
            return Err(Failure::new(Exit::Invalid, "invalid_argument", message));
        }
        (Some(ca), identity) => ClientFiles {
            ca: ca.clone(),
            identity,
        },
    };
    let tls = ClientTls::read(files);
    tls.map(Some)
        .map_err(|error| Failure::invalid(error.to_string()))
}

fn trimmed(endpoints: &[String]) -> impl Iterator<Item = &str> {
    endpoints.iter().map(|endpoint| endpoint.trim())
}

/// The token, from a file or the environment: a flag's value would stand in the list of processes.
pub fn credential(global: &Global) -> Result<Option<Credential>, Failure> {
    let (source, text) = match &global.token_file {
        Some(path) => {
            let source = format!("--token-file {}", path.display());
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| Failure::invalid(format!("{source}: {error}")))?;
            (source, text)
        }
        None => match std::env::var(TOKEN) {
            Ok(text) if !text.is_empty() => (TOKEN.to_owned(), text),
            Ok(_) | Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Failure::invalid(format!("{TOKEN}: it is no text")));
            }
        },
    };
    let token = Bearer::parse(text.trim());
    let token = token.map_err(|error| Failure::invalid(format!("{source}: {error}")))?;
    let credential = Credential::from(token);
    Ok(Some(match global.insecure_token {
        true => credential.in_the_clear(),
        false => credential,
    }))
}

/// The environment variable of the token itself.
const TOKEN: &str = "QUORATE_TOKEN";
