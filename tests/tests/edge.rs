//! The edge of a node: connections that say nothing, ask nothing, or are too many.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_client::admin::Admin;
use quorate_rpc::v1;
use quorate_rpc::v1::coordination_client::CoordinationClient;
use quorate_rpc::v1::watch_message::Message;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::raw;
use quorate_tests::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// What a client of HTTP/2 says first: its preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection that says `first` and then nothing more.
async fn connected(address: &str, first: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(first).await?;
    Ok(stream)
}

/// Waits until the other end hangs up; answers what it said before.
async fn cut(mut stream: TcpStream) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    match ended.context("the connection stays")? {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => bail!(error),
        _ => Ok(said),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_or_asks_nothing_is_cut_and_one_that_waits_is_not() -> Result<()> {
    let options = Options::new(NODE, 1).configure(|config| {
        config.limits.handshake_ms = 300;
        config.limits.idle_ms = 600;
    });
    scenario(options, async |cluster| {
        let at = cluster.nodes[0].client_addr();
        let mut node = CoordinationClient::new(raw::connect(at).await?);
        let what = v1::watch_request::What::LeasePrefix(String::new());
        let watch = v1::WatchRequest {
            what: Some(what),
            from_index: 0,
        };
        let mut watch = node.watch(watch).await?.into_inner();
        let first = watch.message().await?.and_then(|first| first.message);
        ensure!(matches!(first, Some(Message::RegisteredAt(_))), "{first:?}");

        let peer = &cluster.nodes[0].config().listen.peer;
        for (address, first) in [
            (at, &b""[..]),
            (at, &HELLO[..10]),
            (peer, b""),
            (peer, HELLO),
        ] {
            cut(connected(address, first).await?).await?;
        }
        let said = cut(connected(at, HELLO).await?).await?;
        ensure!(!said.is_empty(), "the node has said its settings");

        // All of them were cut later than this one would have been.
        let client = cluster.client()?;
        client
            .lease("seen")
            .ttl(Duration::from_secs(60))
            .try_claim()
            .await?;
        let next = timeout(PATIENCE, watch.message())
            .await
            .context("no notice")??;
        let next = next.and_then(|next| next.message);
        ensure!(matches!(next, Some(Message::Notices(_))), "{next:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_cut_and_nobody_waits_for_it() -> Result<()> {
    let options = Options::new(NODE, 1)
        .with_tls()
        .configure(|config| config.limits.handshake_ms = 5_000);
    scenario(options, async |cluster| {
        let at = cluster.nodes[0].client_addr();
        let peer = &cluster.nodes[0].config().listen.peer;
        let mut slow = Vec::new();
        for address in [at, peer] {
            // The beginning of a greeting, of which the rest never comes.
            slow.push(connected(address, &[0x16, 3, 1, 2, 0]).await?);
            slow.push(connected(address, &[]).await?);
        }
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.process("meanwhile")?.register("").await?;
        for stream in &slow {
            let open = stream.try_read(&mut [0]);
            ensure!(
                open.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
                "the client was served after the slow ones were cut"
            );
        }
        for stream in slow {
            cut(stream).await?;
        }
        let log = cluster.nodes[0].stderr()?;
        ensure!(log.contains("no handshake within 5000 ms"), "{log}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_and_the_others_are_served() -> Result<()> {
    for tls in [false, true] {
        let options = Options::new(NODE, 1).configure(|config| {
            config.limits.connections = 4;
            config.limits.handshake_ms = 60_000;
        });
        let options = match tls {
            true => options.with_tls(),
            false => options,
        };
        scenario(options, async |cluster| {
            let client = cluster.client()?.with_timeout(PATIENCE);
            client.process("first")?.register("").await?;
            let at = cluster.nodes[0].client_addr();
            // Those by which the node was looked at end by themselves.
            let mut held = Vec::new();
            let admin = cluster.admin_at(&[at.to_owned()])?;
            let refused = until("a connection to be refused", PATIENCE, async || {
                held.push(TcpStream::connect(at).await?);
                Ok(admin.status().await.err())
            })
            .await?;
            let words = "limits.connections is 4, and 4 are open";
            ensure!(refused.to_string().contains(words), "{refused}");
            client.process("still")?.register("").await?;
            held.clear();
            until("room again", PATIENCE, async || {
                Ok(admin.status().await.ok().map(drop))
            })
            .await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_the_room() -> Result<()> {
    let options =
        Options::new(NODE, 1).configure(|config| config.limits.connections_per_address = 3);
    scenario(options, async |cluster| {
        let at = cluster.nodes[0].client_addr().to_owned();
        let port = at.rsplit_once(':').context("host:port")?.1.to_owned();
        let mut held = Vec::new();
        let admin = Admin::connect([at.clone()])?;
        let refused = until("a connection to be refused", PATIENCE, async || {
            held.push(TcpStream::connect(&at).await?);
            Ok(admin.status().await.err())
        })
        .await?;
        let words = "from 127.0.0.1: limits.connections_per_address is 3";
        ensure!(refused.to_string().contains(words), "{refused}");
        // Another address of the same machine.
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse()?)?;
        let mut other = socket.connect(format!("127.0.0.1:{port}").parse()?).await?;
        other.write_all(HELLO).await?;
        let mut frame = [0; 9];
        timeout(PATIENCE, other.read_exact(&mut frame)).await??;
        ensure!(frame[3] == 4, "it is greeted with settings: {frame:?}");
        Ok(())
    })
    .await
}
