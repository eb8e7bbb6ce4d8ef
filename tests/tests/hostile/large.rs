//! Messages that are too large, and such as begin and never end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use quorate_rpc::frame::MESSAGE_BYTES_MAX;
use quorate_statemachine::limits::COMMAND_BYTES_MAX;
use quorate_tests::raw;
use quorate_tests::wait::{PATIENCE, until};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{self, request::Builder};
use tonic::metadata::MetadataMap;

use super::siege::{Siege, besieged, options};

const EXECUTE: &str = "/quorate.v1.Coordination/Execute";
const APPEND: &str = "/quorate.v1.Peer/Append";

/// Connections with messages that never end, on the port of clients.
const CONNECTIONS: usize = 8;

/// Streams of each.
const STREAMS: usize = 20;

/// Bytes of each message that come, of those that are announced: 600 MiB in all.
const BYTES: usize = COMMAND_BYTES_MAX - (256 << 10);

const PIECE: Bytes = Bytes::from_static(&[b'x'; 16_000]);

/// Counts those who have sent all they have, or were refused before.
struct Over(Arc<AtomicUsize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The body of a call: a message that begins and does not end before it is broken off.
fn endless(over: Over, go: CancellationToken) -> Body {
    let length = u32::try_from(COMMAND_BYTES_MAX).unwrap_or(u32::MAX);
    let head = Bytes::from([&[0], &length.to_be_bytes()[..]].concat());
    let pieces = std::iter::repeat_n(PIECE, BYTES / PIECE.len());
    let begun = futures::stream::iter([head].into_iter().chain(pieces).map(Ok));
    let silent = futures::stream::once(async move {
        drop(over);
        go.cancelled().await;
        Err(io::Error::other("that was all"))
    });
    Body::new(axum::body::Body::from_stream(begun.chain(silent)))
}

fn call(path: &str, address: &str, body: Body) -> Result<http::Request<Body>> {
    let request = Builder::new()
        .method("POST")
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    Ok(request.body(body)?)
}

/// One connection full of messages that never end, until it is told to go.
async fn unfinished(address: String, over: Arc<AtomicUsize>, go: CancellationToken) -> Result<()> {
    let mut channel = raw::connect(&address).await?;
    let mut calls = Vec::new();
    for _ in 0..STREAMS {
        let body = endless(Over(Arc::clone(&over)), go.clone());
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
        calls.push(channel.call(call(EXECUTE, &address, body)?).await);
    }
    go.cancelled().await;
    drop(calls);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_end_take_no_more_memory_than_the_node_grants_them() -> Result<()> {
    // What a node holds of messages that are not whole, and what connections cost beside it.
    besieged(options(|_| {}), 256 + 96, async |siege| {
        let (over, go) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let address = siege.grpc()[0].to_owned();
            connections.spawn(unfinished(address, Arc::clone(&over), go.clone()));
        }
        until("all to be sent or refused", PATIENCE, async || {
            let over = over.load(Ordering::SeqCst);
            Ok((over == CONNECTIONS * STREAMS).then_some(()))
        })
        .await?;
        siege.served().await?;
        go.cancel();
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        Ok(())
    })
    .await
}

async fn refused(siege: &Siege<'_>, path: &'static str, bytes: Vec<u8>) -> Result<()> {
    for address in siege.grpc() {
        let channel = raw::connect(address).await?;
        let none = MetadataMap::new();
        let said = raw::call_with_bytes(channel, path, &none, bytes.clone()).await;
        ensure!(said.is_err(), "{address} took {path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_refused_and_take_little() -> Result<()> {
    besieged(options(|_| {}), 128, async |siege| {
        for path in [
            EXECUTE,
            APPEND,
            "/quorate.v1.Peer/InstallSnapshot",
            "/quorate.v1.Peer/Vote",
        ] {
            refused(siege, path, vec![b'x'; MESSAGE_BYTES_MAX + 1]).await?;
            // No field begins so.
            refused(siege, path, vec![0xff; 100]).await?;
        }
        siege.served().await
    })
    .await
}
