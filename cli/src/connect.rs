//! From the global flags to a client.

use quorate_client::admin::Admin;
use quorate_client::{Client, Consistency, ReadFrom, Remote, RemoteOptions};

use crate::args::{Global, ReadConsistency};
use crate::exit::Failure;

/// A client of the cluster.
pub fn client(global: &Global) -> Result<Client, Failure> {
    client_at(global, &global.endpoints)
}

/// A client that knows these endpoints only.
pub fn client_at(global: &Global, endpoints: &[String]) -> Result<Client, Failure> {
    refuse_credentials(global)?;
    let (consistency, read_from) = match global.consistency {
        ReadConsistency::Linearizable => (Consistency::Linearizable, ReadFrom::Leader),
        ReadConsistency::Lease => (Consistency::Lease, ReadFrom::Leader),
        ReadConsistency::Stale => (Consistency::Stale { max_lag_ms: None }, ReadFrom::AnyNode),
    };
    let options = RemoteOptions {
        read_from,
        ..RemoteOptions::default()
    };
    let remote = Remote::new(trimmed(endpoints), options)?;
    Ok(Client::new(remote)
        .with_timeout(global.call_timeout())
        .with_consistency(consistency))
}

/// Administration of the cluster.
pub fn admin(global: &Global) -> Result<Admin, Failure> {
    refuse_credentials(global)?;
    Ok(Admin::connect(trimmed(&global.endpoints))?.with_timeout(global.call_timeout()))
}

fn trimmed(endpoints: &[String]) -> impl Iterator<Item = &str> {
    endpoints.iter().map(|endpoint| endpoint.trim())
}

/// What was asked to be secret must not travel in the clear without a word.
fn refuse_credentials(global: &Global) -> Result<(), Failure> {
    let given = [
        ("--cacert", global.cacert.is_some()),
        ("--cert", global.cert.is_some()),
        ("--key", global.key_file.is_some()),
        ("--token-file", global.token_file.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::error(
            "unsupported",
            format!("{flag}: this build's client has no TLS and sends no tokens; nothing was sent"),
        )),
        None => Ok(()),
    }
}
