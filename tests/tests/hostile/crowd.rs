//! Thousands of connections that do nothing, and hundreds that do next to nothing.

use anyhow::{Context, Result, ensure};
use quorate_tests::http::get;
use quorate_tests::long_form;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::h2::{DATA, HELLO, begin, frame};
use super::siege::{Siege, besieged, dribble, open, options};

/// Connections of clients that say hello and nothing more, or nothing at all.
const IDLE: usize = 1_600;

/// The same on each of the two ports that take fewer.
const IDLE_BESIDE: usize = 200;

/// Connections that say a byte a second, over all ports.
const SLOW: usize = 200;

/// Files that the test and the node need beside these connections.
const FILES_BESIDE: u64 = 500;

/// So many files may be open in this process, and in those that it starts.
fn raise_files(connections: usize) -> Result<()> {
    let wanted = connections as u64 + FILES_BESIDE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A node keeps half of its files for itself.
    ensure!(
        files >= 2 * wanted,
        "{files} files may be open, and {connections} connections need {}",
        2 * wanted
    );
    Ok(())
}

/// A message that has begun, on a call that is open: its connection is not idle.
fn begun() -> Vec<u8> {
    let call = begin(1, "/quorate.v1.Coordination/Execute");
    let begun = frame(DATA, 0, 1, &[0, 0, 0, 0x10, 0, b'x']);
    // What follows are frames of one byte each, whose heads come a byte at a time as well.
    [HELLO, &call, &begun].concat()
}

async fn come(siege: &Siege<'_>, idle: usize) -> Result<Vec<TcpStream>> {
    let [client, peer] = siege.grpc();
    let beside = IDLE_BESIDE.min(idle);
    let mut held = Vec::new();
    for (address, count) in [(client, idle), (peer, beside), (siege.http(), beside)] {
        for number in 0..count {
            let first = match number % 2 {
                0 if address != siege.http() => HELLO,
                _ => b"",
            };
            held.push(open(address, first).await.context("one of many")?);
        }
    }
    Ok(held)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_are_idle_and_hundreds_that_are_slow_take_little() -> Result<()> {
    let idle = long_form("QUORATE_IDLE", IDLE);
    raise_files(idle + 2 * IDLE_BESIDE + SLOW)?;
    let options = options(move |config| {
        config.limits.connections = config.limits.connections.max(2 * idle);
    });
    // 50 KiB for each; they take about 15.
    let mib_max = (idle as u64 + 600) / 20;
    besieged(options, mib_max.max(64), async |siege| {
        let held = come(siege, idle).await?;
        siege.served().await?;
        let mut slow = JoinSet::new();
        let [client, peer] = siege.grpc();
        let http: &[u8] = b"GET /livez HTTP/1.1\r\nx: ";
        for number in 0..SLOW {
            let (address, first) = match number % 4 {
                0 => (peer, HELLO.to_vec()),
                1 => (siege.http(), http.to_vec()),
                2 => (client, HELLO[..3].to_vec()),
                _ => (client, begun()),
            };
            slow.spawn(dribble(open(address, &first).await.context("a slow one")?));
        }
        siege.served().await?;
        // New ones come in all the while.
        siege
            .cluster
            .client()?
            .process("newcomer")?
            .register("")
            .await?;
        let (code, _) = get(siege.http(), "/livez").await?;
        ensure!(code == 200, "/livez says {code}");
        siege.served().await?;
        drop(held);
        slow.shutdown().await;
        Ok(())
    })
    .await
}
