//! The typed services, called as a program in another language calls them: on the generated client,
//! without retries and without anything of ours in between.

mod grants;
mod health;
mod leases;
mod locks;
mod processes;
mod queues;
mod wakes;
mod watch;

use anyhow::{Context, Result, bail, ensure};
use quorate_rpc::{details, v1};
use quorate_tests::cluster::Cluster;
use quorate_tests::raw;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Long enough for everything to happen while it runs.
const TTL_MS: u64 = 60_000;

async fn channel(cluster: &Cluster, node: usize) -> Result<Channel> {
    raw::connect(cluster.nodes[node].client_addr()).await
}

fn owner(name: &str) -> Option<v1::Owner> {
    Some(v1::Owner {
        owner_id: name.to_owned(),
        ..v1::Owner::default()
    })
}

fn request_id(not_before: u64) -> Option<v1::RequestId> {
    let id: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    Some(v1::RequestId {
        id: id.to_vec().into(),
        not_before,
    })
}

/// The status of a call that must fail with this code and this reason.
fn refused<T>(outcome: Result<Response<T>, Status>, code: Code, reason: &str) -> Result<Status> {
    let Err(status) = outcome else {
        bail!("not refused with {reason}");
    };
    ensure!(status.code() == code, "{status:?}");
    let info = status.get_details_error_info().context("no ErrorInfo")?;
    ensure!(info.domain == details::DOMAIN, "{info:?}");
    ensure!(info.reason == reason, "{info:?}");
    Ok(status)
}
