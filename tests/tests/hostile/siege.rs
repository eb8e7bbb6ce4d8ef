//! A node under attack, beside which a client works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::process::{NodeProcess, free_port};
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::{NODE, footprint};

/// What is attacked, and who works beside it.
pub struct Siege<'a> {
    /// The cluster; its first node is the one that is attacked.
    pub cluster: &'a Cluster,
    load: &'a Load,
}

impl Siege<'_> {
    /// The node that is attacked.
    pub fn node(&self) -> &NodeProcess {
        &self.cluster.nodes[0]
    }

    /// Its ports of gRPC.
    pub fn grpc(&self) -> [&str; 2] {
        let listen = &self.node().config().listen;
        [&listen.client, &listen.peer]
    }

    /// Its port of HTTP/1.
    pub fn http(&self) -> &str {
        &self.node().config().listen.http
    }

    /// The client is served now.
    pub async fn served(&self) -> Result<()> {
        let more = self.load.more(100, RECOVERY_MAX).await;
        more.context("the client that behaves is not served")
    }
}

/// What all attacks go against.
pub fn options(configure: impl Fn(&mut Config) + Send + Sync + 'static) -> Options {
    Options::new(NODE, 1).configure(move |config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
        configure(config);
    })
}

/// Runs an attack while a client works. Of that client no operation may fail, and memory may not
/// grow by more than `mib_max`, also not for a moment.
pub async fn besieged(
    options: Options,
    mib_max: u64,
    attack: impl AsyncFnOnce(&Siege) -> Result<()>,
) -> Result<()> {
    scenario(options, async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 2).await?;
        load.more(200, RECOVERY_MAX).await?;
        let node = &cluster.nodes[0];
        let sockets = footprint::sockets(node)?;
        footprint::forget_peak(node)?;
        let before = footprint::resident(node)?;
        let siege = Siege {
            cluster,
            load: &load,
        };
        attack(&siege).await?;
        siege.served().await?;
        let grown = footprint::peak(node)?.saturating_sub(before);
        println!("memory grew by {} MiB at most", grown >> 20);
        ensure!(
            grown <= mib_max << 20,
            "memory grew by {grown} bytes, the bound is {mib_max} MiB"
        );
        until("the sockets to be closed", PATIENCE, async || {
            Ok((footprint::sockets(node)? <= sockets).then_some(()))
        })
        .await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

/// Sends `bytes` and nothing more, and waits until the other end hangs up; what it has said.
pub async fn say(address: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let writing = async {
        // The node may hang up before it has read all.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let mut said = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut said).await;
    };
    let both = async { tokio::join!(writing, reading) };
    timeout(PATIENCE, both)
        .await
        .context("the connection stays open")?;
    Ok(said)
}

/// Opens a connection and sends `first`. It is open for as long as it is held.
pub async fn open(address: &str, first: &[u8]) -> Result<TcpStream> {
    let connecting = timeout(Duration::from_secs(10), TcpStream::connect(address));
    let mut stream = connecting.await.context("no connection")??;
    stream.write_all(first).await?;
    Ok(stream)
}

/// Says a byte a second until the node has had enough of it.
pub async fn dribble(mut stream: TcpStream) {
    let mut pace = interval(Duration::from_secs(1));
    loop {
        pace.tick().await;
        if stream.write_all(b"y").await.is_err() {
            return;
        }
    }
}
