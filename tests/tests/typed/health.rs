//! `grpc.health.v1` and reflection.

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{NODE, channel};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_for_each_service_and_ends_when_the_node_stops() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let mut health = HealthClient::new(channel(cluster, leader).await?);
        for service in ["", "quorate.v1.Coordination", "quorate.v1.Locks"] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            until("the service to be ready", PATIENCE, async || {
                let status = health.check(request.clone()).await?.into_inner().status();
                Ok((status == ServingStatus::Serving).then_some(()))
            })
            .await?;
        }
        let unknown = HealthCheckRequest {
            service: "no.such".to_owned(),
        };
        let status = health.check(unknown).await.expect_err("nobody serves it");
        ensure!(status.code() == Code::NotFound, "{status:?}");

        let all = HealthCheckRequest::default();
        let mut watch = health.watch(all).await?.into_inner();
        let first = watch.next().await.context("the state now")??;
        ensure!(first.status() == ServingStatus::Serving, "{first:?}");
        cluster.nodes[leader].terminate().await?;
        let next = watch.next().await.context("the change")??;
        ensure!(next.status() == ServingStatus::NotServing, "{next:?}");
        Ok(())
    })
    .await
}

/// Services on the port of clients.
const SERVICES: [&str; 8] = [
    "quorate.v1.Cluster",
    "quorate.v1.Coordination",
    "quorate.v1.Leases",
    "quorate.v1.Locks",
    "quorate.v1.Processes",
    "quorate.v1.Queues",
    "quorate.v1.Watch",
    "grpc.health.v1.Health",
];

/// All services that reflection names, and how many of [`SERVICES`] it describes.
macro_rules! reflected {
    ($version:ident, $channel:expr) => {{
        use pb::server_reflection_request::MessageRequest as Ask;
        use pb::server_reflection_response::MessageResponse as Told;
        use tonic_reflection::pb::$version as pb;
        let mut client =
            pb::server_reflection_client::ServerReflectionClient::new($channel.clone());
        let describe = SERVICES.map(|name| Ask::FileContainingSymbol(name.to_owned()));
        let asked = std::iter::once(Ask::ListServices(String::new())).chain(describe);
        let asked = asked.map(|message| pb::ServerReflectionRequest {
            message_request: Some(message),
            ..Default::default()
        });
        let asked = futures::stream::iter(asked.collect::<Vec<_>>());
        let answers = client.server_reflection_info(asked).await?.into_inner();
        let answers: Vec<_> = answers.try_collect().await?;
        let (mut names, mut described) = (Vec::new(), 0);
        for answer in answers {
            match answer.message_response {
                Some(Told::ListServicesResponse(services)) => {
                    names.extend(services.service.into_iter().map(|service| service.name));
                }
                Some(Told::FileDescriptorResponse(files)) => {
                    described += usize::from(!files.file_descriptor_proto.is_empty());
                }
                other => bail!("{other:?}"),
            }
        }
        (names, described)
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_and_describes_every_service_but_those_between_nodes() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        for (names, described) in [reflected!(v1, channel), reflected!(v1alpha, channel)] {
            for wanted in SERVICES {
                ensure!(names.iter().any(|name| name == wanted), "{names:?}");
            }
            ensure!(
                !names.iter().any(|name| name.ends_with(".Peer")),
                "{names:?}"
            );
            ensure!(described == SERVICES.len(), "{described}");
        }
        Ok(())
    })
    .await
}
