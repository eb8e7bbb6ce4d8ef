//! Bad input to a real node: refused with limit and actual value, without a trace in the log, and
//! the node goes on.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_client::Client;
use quorate_rpc::{frame, v1};
use quorate_statemachine::lease::{self, Claim, SameOwner};
use quorate_statemachine::limits::{
    COMMAND_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, TTL_MS_MAX,
};
use quorate_statemachine::process::Append;
use quorate_statemachine::{
    Command, LeaseToken, Name, Owner, Precondition, Query, Refusal, RequestId, codec,
};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::raw::{self, Said};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const EXECUTE: &str = "/quorate.v1.Coordination/Execute";
const READ: &str = "/quorate.v1.Coordination/Read";

fn claim() -> Result<Claim> {
    Ok(Claim {
        key: Name::parse("key", "k")?,
        owner: Owner::new(
            Name::parse("owner", "tester")?,
            Name::parse("owner", "boot")?,
        ),
        lease_token: LeaseToken::parse("t")?,
        ttl_ms: 60_000,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    })
}

async fn channel(cluster: &Cluster) -> Result<Channel> {
    raw::connect(cluster.nodes[0].client_addr()).await
}

/// The refusal of a command that must not have been proposed.
async fn refusal_of(channel: &Channel, command: Vec<u8>) -> Result<Refusal> {
    match raw::execute(channel.clone(), command, 5_000).await? {
        Said::Refused(0, refusal) => Ok(refusal),
        other => bail!("not refused at the border: {other:?}"),
    }
}

/// Does something to a cluster of one, which must not change its log, and then still works.
async fn without_a_trace(attack: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let client = cluster.client()?;
        client.execute(claim()?).await?;
        let before = cluster.status(0).await?;
        attack(cluster).await?;
        let after = cluster.status(0).await?;
        ensure!(
            after.last_log == before.last_log,
            "the log grew: {before:?}, {after:?}"
        );
        ensure!(
            after.digest == before.digest && after.term == before.term,
            "{after:?}"
        );
        ensure!(after.healthy, "the node is not well: {}", after.problem);
        // It still takes a write.
        let next = Claim {
            key: Name::parse("key", "next")?,
            ..claim()?
        };
        client.execute(next).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_command_are_refused() -> Result<()> {
    without_a_trace(async |cluster| {
        let channel = channel(cluster).await?;
        let good = Command::from(claim()?).encode();
        let mut hostile: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
        let mut random = fastrand::Rng::with_seed(1);
        for length in [1, 3, 17, 300, 5_000] {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            hostile.push(bytes.clone());
            // With a header that is right, the body is looked at.
            hostile.push([&codec::header(0x0101)[..], &bytes[..]].concat());
        }
        for command in hostile {
            let refusal = refusal_of(&channel, command.clone()).await;
            let refusal = refusal.with_context(|| format!("{command:?}"))?;
            ensure!(
                refusal.code() == "invalid_argument",
                "{command:?}: {refusal}"
            );
        }
        let mut unknown_version = good.clone();
        unknown_version[0] = 200;
        let refusal = refusal_of(&channel, unknown_version).await?.to_string();
        ensure!(refusal.contains("format version 200"), "{refusal}");
        let mut unknown_tag = good.clone();
        unknown_tag[1..3].copy_from_slice(&0x6fff_u16.to_le_bytes());
        let refusal = refusal_of(&channel, unknown_tag).await?.to_string();
        ensure!(refusal.contains("tag 0x6fff is unknown"), "{refusal}");
        Ok(())
    })
    .await
}

/// A claim as it is encoded, with any text as its key.
fn claim_of(key: &str) -> Result<Vec<u8>> {
    let claim = claim()?;
    let mut out = codec::header(0x0101);
    codec::put(&mut out, &None::<RequestId>);
    codec::put(&mut out, &Vec::<Precondition>::new());
    codec::put(&mut out, &key);
    let Claim {
        owner,
        lease_token,
        ttl_ms,
        same_owner,
        metadata,
        ..
    } = claim;
    codec::put(
        &mut out,
        &(owner, lease_token, ttl_ms, same_owner, metadata),
    );
    Ok(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_out_of_bounds_are_refused_with_limit_and_actual_value() -> Result<()> {
    without_a_trace(async |cluster| {
        let channel = channel(cluster).await?;
        ensure!(
            claim_of("k")? == Command::from(claim()?).encode(),
            "not how a claim is encoded"
        );
        let long = claim_of(&"k".repeat(NAME_BYTES_MAX + 1))?;
        let with_ttl = |ttl_ms| -> Result<Vec<u8>> {
            Ok(Command::from(Claim { ttl_ms, ..claim()? }).encode())
        };
        let (id, event_type) = (Name::parse("id", "p")?, Name::parse("event_type", "t")?);
        let append = Append::new(id, event_type, vec![0; PAYLOAD_BYTES_MAX + 1]);
        let cases = [
            (
                "a long key",
                long,
                "512 bytes".to_owned(),
                "513 bytes".to_owned(),
            ),
            (
                "no key",
                claim_of("")?,
                "1 to 512 bytes".to_owned(),
                "0 bytes".to_owned(),
            ),
            (
                "a control character",
                claim_of("a\nb")?,
                "printable".to_owned(),
                "U+000A".to_owned(),
            ),
            (
                "no time",
                with_ttl(0)?,
                "1 to".to_owned(),
                "actual 0".to_owned(),
            ),
            (
                "too much time",
                with_ttl(TTL_MS_MAX + 1)?,
                TTL_MS_MAX.to_string(),
                (TTL_MS_MAX + 1).to_string(),
            ),
            (
                "a large payload",
                Command::from(append).encode(),
                PAYLOAD_BYTES_MAX.to_string(),
                (PAYLOAD_BYTES_MAX + 1).to_string(),
            ),
            (
                "a large command",
                vec![0; COMMAND_BYTES_MAX + 1],
                COMMAND_BYTES_MAX.to_string(),
                (COMMAND_BYTES_MAX + 1).to_string(),
            ),
        ];
        for (what, command, limit, actual) in cases {
            let refusal = refusal_of(&channel, command).await.context(what)?;
            ensure!(refusal.code() == "invalid_argument", "{what}: {refusal}");
            let text = refusal.to_string();
            ensure!(
                text.contains(&limit) && text.contains(&actual),
                "{what}: {text}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_query_are_refused() -> Result<()> {
    without_a_trace(async |cluster| {
        let channel = channel(cluster).await?;
        let mut random = fastrand::Rng::with_seed(2);
        for length in [0, 1, 2, 3, 40, 3_000] {
            let mut query = vec![0; length];
            random.fill(&mut query);
            let request = v1::ReadRequest {
                query: query.clone().into(),
                ..v1::ReadRequest::default()
            };
            match raw::read(channel.clone(), request).await? {
                Said::Refused(0, Refusal::Invalid(_)) => {}
                other => bail!("{query:?} was answered {other:?}"),
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_protobuf_or_too_large_end_their_stream_with_a_status() -> Result<()> {
    without_a_trace(async |cluster| {
        let channel = channel(cluster).await?;
        let none = MetadataMap::new();
        for path in [EXECUTE, READ] {
            // A field of length 127 in a message of three bytes.
            let cut = vec![0x0a, 0x7f, 0x01];
            let status = raw::call_with_bytes(channel.clone(), path, &none, cut).await;
            let status = status
                .err()
                .with_context(|| format!("{path} took no protobuf"))?;
            ensure!(status.code() == Code::Internal, "{path}: {status}");
            let large = vec![0; frame::REQUEST_BYTES_MAX + 1];
            let status = raw::call_with_bytes(channel.clone(), path, &none, large).await;
            let status = status
                .err()
                .with_context(|| format!("{path} took a large message"))?;
            ensure!(status.code() == Code::OutOfRange, "{path}: {status}");
            let text = status.message();
            let limit = frame::REQUEST_BYTES_MAX.to_string();
            let actual = (frame::REQUEST_BYTES_MAX + 1).to_string();
            ensure!(
                text.contains(&limit) && text.contains(&actual),
                "{path}: {text}"
            );
        }
        let unknown = "/quorate.v1.Coordination/Nothing";
        let status = raw::call_with_bytes(channel, unknown, &none, Vec::new()).await;
        let status = status.expect_err("there is no such method");
        ensure!(status.code() == Code::Unimplemented, "{status}");
        Ok(())
    })
    .await
}

fn query_of_a_key() -> Result<Query> {
    let key = Name::parse("key", "k")?;
    Ok(Query::Lease(lease::Query::Get(lease::Get { key })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_too_many_requests_ends_its_stream_with_a_status() -> Result<()> {
    without_a_trace(async |cluster| {
        let mut client = v1::coordination_client::CoordinationClient::new(channel(cluster).await?);
        let request = |id| v1::ReadRequest {
            id,
            ..v1::ReadRequest::default()
        };
        let batch = v1::ReadBatch {
            requests: (0..=frame::BATCH_REQUESTS as u64).map(request).collect(),
        };
        let replies = client.read(futures::stream::iter([batch])).await?;
        let mut replies = replies.into_inner();
        let status = loop {
            match replies.message().await {
                Ok(Some(reply)) => ensure!(reply.replies.is_empty(), "{reply:?}"),
                Ok(None) => bail!("the stream ended without a word"),
                Err(status) => break status,
            }
        };
        ensure!(status.code() == Code::InvalidArgument, "{status}");
        ensure!(status.message().contains("512"), "{status}");
        ensure!(status.message().contains("513"), "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_of_one_id_end_their_stream_with_a_status() -> Result<()> {
    without_a_trace(async |cluster| {
        let mut client = v1::coordination_client::CoordinationClient::new(channel(cluster).await?);
        let request = v1::ReadRequest {
            id: 1,
            min_index: u64::MAX,
            query: query_of_a_key()?.encode().into(),
            ..v1::ReadRequest::default()
        };
        let batch = v1::ReadBatch {
            requests: vec![request.clone(), request],
        };
        let mut replies = client
            .read(futures::stream::iter([batch]))
            .await?
            .into_inner();
        let status = loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => bail!("the stream ended without a word"),
                Err(status) => break status,
            }
        };
        ensure!(status.code() == Code::InvalidArgument, "{status}");
        ensure!(status.message().contains("in flight"), "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_close_their_connection() -> Result<()> {
    without_a_trace(async |cluster| {
        let mut random = fastrand::Rng::with_seed(3);
        let listen = &cluster.nodes[0].config().listen;
        for address in [&listen.client, &listen.peer] {
            for length in [1, 24, 1_000, 100_000] {
                let mut bytes = vec![0; length];
                random.fill(&mut bytes);
                let mut connection = TcpStream::connect(address).await?;
                // The node may close before it has read all: then writing fails, which is fine.
                let _ = connection.write_all(&bytes).await;
                let _ = connection.shutdown().await;
                let mut answer = Vec::new();
                let read = connection.read_to_end(&mut answer);
                let closed = tokio::time::timeout(quorate_tests::wait::PATIENCE, read).await;
                closed.context("the connection stays open")?.ok();
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_an_index_far_ahead_hold_nobody_back() -> Result<()> {
    without_a_trace(async |cluster| {
        let address = cluster.nodes[0].client_addr();
        let request = v1::ReadRequest {
            min_index: u64::MAX,
            query: query_of_a_key()?.encode().into(),
            timeout_ms: 30_000,
            ..v1::ReadRequest::default()
        };
        let mut waiting = JoinSet::new();
        for _ in 0..16 {
            waiting.spawn(raw::read(raw::connect(address).await?, request.clone()));
        }
        // More rounds than the node has at a time, with and without a batch to share.
        let client = Client::connect([address])?.with_timeout(Duration::from_secs(10));
        for _ in 0..50 {
            client.query(query_of_a_key()?).await?;
        }
        ensure!(
            waiting.try_join_next().is_none(),
            "an index that is not there was answered"
        );
        Ok(())
    })
    .await
}
