//! What one principal may have in flight.

use anyhow::{Context, Result, ensure};
use quorate_client::Bearer;
use quorate_rpc::v1;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::typed::{channel, showing};
use super::{NODE, Users};

/// A look that waits until the node has applied this index.
async fn look(
    channel: &Channel,
    token: &Bearer,
    min_index: u64,
) -> Result<Response<v1::GetLeaseReply>, Status> {
    let get = v1::GetLeaseRequest {
        key: "build/x".to_owned(),
        read: Some(v1::ReadOptions {
            min_index,
            ..v1::ReadOptions::default()
        }),
    };
    LeasesClient::new(channel.clone())
        .get(showing(get, Some(token)))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_principal_that_asks_for_too_much_leaves_room_for_others() -> Result<()> {
    let one_each = |options: Options| {
        options.configure(|config| config.limits.commands_in_flight_per_principal = 1)
    };
    scenario(one_each(Options::new(NODE, 1)), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let channel = channel(cluster, 0).await?;
        let (waiting, ci) = (channel.clone(), users.ci.clone());
        // Again when it is refused itself, because the other was there first.
        let waits =
            tokio::spawn(async move { while look(&waiting, &ci, u64::MAX).await.is_err() {} });
        let refused = until("the second look to be refused", PATIENCE, async || {
            Ok(look(&channel, &users.ci, 0).await.err())
        })
        .await?;
        ensure!(refused.code() == Code::ResourceExhausted, "{refused:?}");
        let words = "commands in flight of ci: limit 1, actual 2";
        ensure!(refused.message().contains(words), "{refused:?}");
        look(&channel, &users.ann, 0)
            .await
            .context("another one is not held back")?;
        waits.abort();
        Ok(())
    })
    .await
}
