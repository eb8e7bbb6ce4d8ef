//! From the global flags to a client.

use quorate_client::admin::Admin;
use quorate_client::{
    Client, ClientFiles, ClientTls, Consistency, ReadFrom, Remote, RemoteOptions,
};

use crate::args::{Global, ReadConsistency};
use crate::exit::{Exit, Failure};

/// A client of the cluster.
pub fn client(global: &Global) -> Result<Client, Failure> {
    client_at(global, &global.endpoints)
}

/// A client that knows these endpoints only.
pub fn client_at(global: &Global, endpoints: &[String]) -> Result<Client, Failure> {
    refuse_token(global)?;
    let (consistency, read_from) = match global.consistency {
        ReadConsistency::Linearizable => (Consistency::Linearizable, ReadFrom::Leader),
        ReadConsistency::Lease => (Consistency::Lease, ReadFrom::Leader),
        ReadConsistency::Stale => (Consistency::Stale { max_lag_ms: None }, ReadFrom::AnyNode),
    };
    let options = RemoteOptions {
        read_from,
        tls: tls(global)?,
        ..RemoteOptions::default()
    };
    let remote = Remote::new(trimmed(endpoints), options)?;
    Ok(Client::new(remote)
        .with_timeout(global.call_timeout())
        .with_consistency(consistency))
}

/// Administration of the cluster.
pub fn admin(global: &Global) -> Result<Admin, Failure> {
    refuse_token(global)?;
    let admin = Admin::connect_with(trimmed(&global.endpoints), tls(global)?)?;
    Ok(admin.with_timeout(global.call_timeout()))
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

/// What was asked to be secret must not be left away without a word.
fn refuse_token(global: &Global) -> Result<(), Failure> {
    match global.token_file {
        Some(_) => Err(Failure::invalid(
            "--token-file: this build's client sends no tokens, and nothing was sent; leave it out, \
             and show a certificate (--cert, --key) if the cluster wants to know who asks",
        )),
        None => Ok(()),
    }
}
