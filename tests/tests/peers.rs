//! The port between nodes: calls that are not meant for the node, and messages that no node sends.

use anyhow::{Context, Result, ensure};
use quorate_rpc::identity::Parties;
use quorate_rpc::v1;
use quorate_rpc::v1::peer_client::PeerClient;
use quorate_statemachine::version::NEWEST;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::raw;
use quorate_tests::wait::{PATIENCE, until};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Every call but Invite, which is for nodes that are in no cluster yet.
const CALLS: [&str; 7] = [
    "/quorate.v1.Peer/Append",
    "/quorate.v1.Peer/Vote",
    "/quorate.v1.Peer/InstallSnapshot",
    "/quorate.v1.Peer/TransferLeader",
    "/quorate.v1.Peer/Forward",
    "/quorate.v1.Peer/ReadIndex",
    "/quorate.v1.Peer/Administer",
];

/// Metadata of a call, and how the call must be refused: code and word.
struct Case {
    metadata: MetadataMap,
    code: Code,
    word: &'static str,
}

fn parties(cluster_id: &str, to: u64) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let parties = Parties {
        cluster_id: cluster_id.to_owned(),
        from: 2,
        to,
    };
    parties.write(&mut metadata);
    metadata
}

async fn unchanged(
    attack: impl AsyncFnOnce(&Cluster, Channel, String) -> Result<()>,
) -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let before = cluster.status(0).await?;
        let channel = raw::connect(&cluster.nodes[0].config().listen.peer).await?;
        attack(cluster, channel, before.cluster_id.clone()).await?;
        let after = cluster.status(0).await?;
        ensure!(after.healthy, "the node is not well: {}", after.problem);
        let same = (after.term, after.last_log, &after.digest, &after.role)
            == (before.term, before.last_log, &before.digest, &before.role);
        ensure!(same, "before {before:?}, after {after:?}");
        cluster
            .client()?
            .process("still-works")?
            .register("")
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_another_cluster_or_node_are_refused() -> Result<()> {
    unchanged(async |_, channel, cluster_id| {
        let cases = [
            Case {
                metadata: MetadataMap::new(),
                code: Code::InvalidArgument,
                word: "missing",
            },
            Case {
                metadata: parties("another-cluster", 1),
                code: Code::FailedPrecondition,
                word: "another-cluster",
            },
            Case {
                metadata: parties(&cluster_id, 9),
                code: Code::FailedPrecondition,
                word: "node 9",
            },
        ];
        for call in CALLS {
            for case in &cases {
                let sent = raw::call_with_bytes(channel.clone(), call, &case.metadata, Vec::new());
                let status = sent
                    .await
                    .err()
                    .with_context(|| format!("{call} was accepted"))?;
                ensure!(status.code() == case.code, "{call}: {status}");
                ensure!(status.message().contains(case.word), "{call}: {status}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_node_sends_change_nothing() -> Result<()> {
    unchanged(async |_, channel, cluster_id| {
        let metadata = parties(&cluster_id, 1);
        let mut random = fastrand::Rng::with_seed(4);
        for call in CALLS {
            for length in [1, 2, 7, 60, 2_000] {
                let mut bytes = vec![0; length];
                random.fill(&mut bytes);
                // A status or an empty answer: that the node goes on is checked at the end.
                let _ = raw::call_with_bytes(channel.clone(), call, &metadata, bytes).await;
            }
        }
        Ok(())
    })
    .await
}

fn addressed<T>(message: T, metadata: &MetadataMap) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata.clone();
    request
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, word: &str) -> Result<()> {
    match answer {
        Ok(answer) => anyhow::bail!("accepted: {answer:?}"),
        Err(status) => {
            ensure!(status.code() == Code::InvalidArgument, "{status}");
            ensure!(status.message().contains(word), "{status}");
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_their_parts_are_refused() -> Result<()> {
    unchanged(async |_, channel, cluster_id| {
        let metadata = parties(&cluster_id, 1);
        let mut peer = PeerClient::new(channel);
        refused(
            peer.vote(addressed(v1::VoteRequest::default(), &metadata))
                .await,
            "vote",
        )?;
        let transfer = v1::TransferLeaderRequest::default();
        refused(
            peer.transfer_leader(addressed(transfer, &metadata)).await,
            "vote",
        )?;

        let reply = peer
            .administer(addressed(v1::AdministerRequest::default(), &metadata))
            .await?;
        let error = reply
            .into_inner()
            .error
            .context("an empty request was done")?;
        ensure!(
            error.kind() == v1::node_error::Kind::InvalidArgument,
            "{error:?}"
        );

        let forwarded = v1::ForwardRequest {
            command: vec![1, 2, 3].into(),
            timeout_ms: 1_000,
            ..v1::ForwardRequest::default()
        };
        let reply = peer
            .forward(addressed(forwarded, &metadata))
            .await?
            .into_inner();
        ensure!(reply.index == 0 && reply.result.is_some(), "{reply:?}");

        let chunk = v1::SnapshotMessage {
            message: Some(v1::snapshot_message::Message::Chunk(
                v1::SnapshotChunk::default(),
            )),
        };
        let chunks = addressed(futures::stream::iter([chunk]), &metadata);
        let mut replies = peer.install_snapshot(chunks).await?.into_inner();
        let end = replies.message().await;
        ensure!(
            !matches!(end, Ok(Some(_))),
            "a chunk without a start was taken: {end:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_be_invited_elsewhere() -> Result<()> {
    unchanged(async |cluster, channel, cluster_id| {
        let mut peer = PeerClient::new(channel);
        let invite = v1::InviteRequest {
            cluster_id: "another-cluster".to_owned(),
            node_id: 5,
            name: "n5".to_owned(),
            ..v1::InviteRequest::default()
        };
        let reply = peer.invite(invite).await?.into_inner();
        let error = reply
            .error
            .context("a member went over to another cluster")?;
        ensure!(
            error.kind() == v1::node_error::Kind::WrongCluster,
            "{error:?}"
        );
        // The same cluster again: it keeps the id that it has.
        let again = v1::InviteRequest {
            cluster_id,
            node_id: 5,
            name: "n5".to_owned(),
            ..v1::InviteRequest::default()
        };
        let reply = peer.invite(again).await?.into_inner();
        ensure!(reply.error.is_none() && reply.node_id == 1, "{reply:?}");
        ensure!(cluster.status(0).await?.id == 1, "its id changed");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_a_members_address_is_kept_out() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let gone = cluster.follower().await?;
        cluster.nodes[gone].kill()?;
        // Another cluster's founder on the address of the member that is away.
        let mut config = cluster.nodes[gone].config().clone();
        config.node.name = "stranger".to_owned();
        config.node.data_dir = cluster.dir().join("stranger");
        config.node.bootstrap = true;
        let mut stranger = cluster.process(config)?;
        stranger.start()?;
        let own = until("the stranger to found its cluster", PATIENCE, async || {
            let status = cluster.status(gone).await?;
            let founded = status.role == "leader" && status.cluster_version == NEWEST;
            let idle = founded && status.committed == status.last_log;
            Ok(idle.then_some(status))
        })
        .await?;
        let leader = cluster.leader().await?;
        let home = cluster.status(leader).await?;
        ensure!(
            own.cluster_id != home.cluster_id,
            "the stranger is no stranger"
        );
        // The leader tries to replicate to it all the time; a few hundred writes are many tries.
        let client = quorate_client::Client::connect([cluster.nodes[leader].client_addr()])?;
        let process = client.process("at-home")?;
        process.register("").await?;
        let event_type = quorate_statemachine::Name::parse("event_type", "t")?;
        for _ in 0..300 {
            process.append(&event_type, None, "").await?;
        }
        let after = cluster.status(gone).await?;
        ensure!(
            after.last_log == own.last_log && after.term == own.term,
            "{own:?} {after:?}"
        );
        quorate_tests::cluster::no_panic(&stranger)?;
        stranger.kill()?;
        cluster.nodes[gone].start()?;
        cluster.caught_up(gone).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_its_node_whatever_address_it_is_started_on() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let ids = [cluster.status(1).await?.id, cluster.status(2).await?.id];
        cluster.nodes[1].terminate().await?;
        cluster.nodes[2].terminate().await?;
        // The second node's ports on the third one's directory.
        let mut config = cluster.nodes[2].config().clone();
        config.listen = cluster.nodes[1].config().listen.clone();
        let mut moved = cluster.process_of("n3-moved", config)?;
        moved.start()?;
        let status = cluster.ready(1).await?;
        ensure!(status.id == ids[1], "it says that it is node {}", status.id);
        // Calls for the second node reach it and are refused: the two make a quorum of three only
        // once the cluster was told where the third node is.
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.process("still-works")?.register("").await?;
        until(
            "the cluster to know the new address",
            PATIENCE,
            async || {
                let members = cluster.admin()?.members(false).await?.members;
                let third = members.iter().find(|member| member.id == ids[1]);
                let third = third.context("the third node is no member")?;
                Ok((third.client_addr == status.client_addr).then_some(()))
            },
        )
        .await?;
        quorate_tests::cluster::no_panic(&moved)?;
        moved.terminate().await?;
        cluster.nodes[1].start()?;
        cluster.nodes[2].start()?;
        for node in [1, 2] {
            cluster.caught_up(node).await?;
        }
        ensure!(
            cluster.status(1).await?.id == ids[0],
            "the second node is another one"
        );
        cluster.digests_agree().await
    })
    .await
}
