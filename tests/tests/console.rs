//! The web console's server, over a real socket: who gets what, and that it is live.

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_node::Console;
use quorate_statemachine::Name;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn nodes(count: usize) -> Options {
    Options::new(NODE, count).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
    })
}

fn http(cluster: &Cluster, node: usize) -> String {
    cluster.nodes[node].config().listen.http.clone()
}

/// Asks for `what`, a method and a path.
async fn ask(address: &str, host: &str, what: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{what} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Status, head in lower case, body.
async fn answer(address: &str, host: &str, what: &str) -> Result<(u16, String, String)> {
    let mut answer = String::new();
    let mut stream = ask(address, host, what).await?;
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("no end of the head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, head.to_lowercase(), body.to_owned()))
}

async fn get(address: &str, path: &str) -> Result<(u16, String, String)> {
    answer(address, address, &format!("GET {path}")).await
}

async fn json(address: &str, path: &str) -> Result<Value> {
    let (status, _, body) = get(address, path).await?;
    ensure!(status == 200, "{path}: {status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

/// A page that is open.
struct Page(BufReader<TcpStream>);

impl Page {
    async fn open(address: &str) -> Result<Self> {
        Ok(Self(BufReader::new(
            ask(address, address, "GET /console/live").await?,
        )))
    }

    /// Waits for a part that fits.
    async fn part(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = async {
            let mut event = String::new();
            loop {
                let mut line = String::new();
                let read = self.0.read_line(&mut line).await?;
                ensure!(read > 0, "the stream ended");
                if let Some(named) = line.trim_end().strip_prefix("event: ") {
                    event = named.to_owned();
                }
                let Some(data) = line.trim_end().strip_prefix("data: ") else {
                    continue;
                };
                let part: Value = serde_json::from_str(data)?;
                if event == name && fits(&part) {
                    return Ok(part);
                }
            }
        };
        timeout(PATIENCE, found)
            .await
            .with_context(|| format!("no {name} that fits"))?
    }
}

fn row<'a>(part: &'a Value, key: &str) -> Option<&'a Value> {
    part["rows"]
        .as_array()?
        .iter()
        .find(|row| row["key"] == key)
}

fn name(text: &str) -> Result<Name> {
    Ok(Name::parse("name", text)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_appears_ends_and_is_explained() -> Result<()> {
    scenario(nodes(3), async |cluster| {
        let follower = http(cluster, cluster.follower().await?);
        let mut page = Page::open(&follower).await?;
        let cluster_part = page.part("cluster", |part| part["fresh"] == true).await?;
        ensure!(cluster_part["node"]["role"] == "follower", "{cluster_part}");
        let members = cluster_part["members"].as_array().context("members")?;
        ensure!(members.len() == 3, "{cluster_part}");
        page.part("leases", |part| row(part, "ship").is_none())
            .await?;

        let client: Client = cluster.client()?;
        let token = claim(&client, "ship", "captain", 1_500).await?.to_string();
        let part = page
            .part("leases", |part| row(part, "ship").is_some())
            .await?;
        let shown = row(&part, "ship").context("just seen")?;
        ensure!(shown["owner"] == "captain", "{shown}");
        ensure!(shown["token"] == *token, "{shown}");
        ensure!(
            !part.to_string().contains("proof-of"),
            "the proof is shown: {part}"
        );
        // It is not renewed: it ends, and the page hears of it.
        page.part("leases", |part| row(part, "ship").is_none())
            .await?;

        let story = json(&follower, "/console/key?of=ship").await?;
        ensure!(story["lease"].is_null(), "{story}");
        ensure!(story["ended"][0]["reason"] == "expired", "{story}");
        ensure!(story["ended"][0]["token"] == *token, "{story}");
        ensure!(story["lock"].is_null(), "{story}");

        let (status, _, body) = get(&follower, "/console/process?of=none").await?;
        ensure!(
            status == 404 && body.contains("no process none"),
            "{status}: {body}"
        );
        let (status, _, body) = get(&follower, "/console/queue?of=none").await?;
        ensure!(
            status == 404 && body.contains("no queue none"),
            "{status}: {body}"
        );
        let (status, _, body) = get(&follower, "/console/key?of=").await?;
        ensure!(status == 400, "{status}: {body}");
        Ok(())
    })
    .await
}

async fn claim(client: &Client, key: &str, owner: &str, ttl_ms: u64) -> Result<u64> {
    use quorate_statemachine::lease::{Claim, Claimed, SameOwner};
    use quorate_statemachine::{LeaseToken, Owner};
    let claim = Claim {
        key: name(key)?,
        owner: Owner::new(name(owner)?, name(owner)?),
        lease_token: LeaseToken::parse(format!("proof-of-{owner}"))?,
        ttl_ms,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    match client.execute(claim).await? {
        Claimed::Granted(lease) => Ok(lease.fencing_token),
        other => anyhow::bail!("not granted: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_guarded_and_needs_nothing_from_elsewhere() -> Result<()> {
    scenario(nodes(1), async |cluster| {
        let address = http(cluster, 0);
        for (path, kind) in [
            ("/console/", "text/html"),
            ("/console/console.css", "text/css"),
            ("/console/console.js", "text/javascript"),
        ] {
            let (status, head, body) = get(&address, path).await?;
            ensure!(status == 200, "{path}: {status}");
            ensure!(
                head.contains(&format!("content-type: {kind}")),
                "{path}: {head}"
            );
            ensure!(
                head.contains("content-security-policy: default-src 'none'"),
                "{head}"
            );
            ensure!(head.contains("x-content-type-options: nosniff"), "{head}");
            ensure!(
                !body.contains("//cdn") && !body.contains("https://"),
                "{path}"
            );
        }
        // A name of somebody else's that leads to this address.
        for path in ["/console/", "/console/live", "/console/key?of=a"] {
            let (status, _, body) =
                answer(&address, "evil.example", &format!("GET {path}")).await?;
            ensure!(
                status == 403 && body.contains("evil.example"),
                "{path}: {status}: {body}"
            );
        }
        // Probes come under any name.
        let (status, ..) = answer(&address, "evil.example", "GET /livez").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_off_says_so() -> Result<()> {
    let off = nodes(1).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
        config.http.console = Console::Off;
    });
    scenario(off, async |cluster| {
        let address = http(cluster, 0);
        let (status, _, body) = get(&address, "/console/").await?;
        ensure!(
            status == 404 && body.contains("http.console"),
            "{status}: {body}"
        );
        ensure!(get(&address, "/console/live").await?.0 == 404, "it streams");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_bounded_and_do_not_hold_a_node_back() -> Result<()> {
    scenario(nodes(1), async |cluster| {
        let address = http(cluster, 0);
        let mut pages = Vec::new();
        for _ in 0..16 {
            let mut page = Page::open(&address).await?;
            page.part("cluster", |_| true).await?;
            pages.push(page);
        }
        let (status, head, body) = get(&address, "/console/live").await?;
        ensure!(
            status == 503 && head.contains("retry-after"),
            "{status}: {head}: {body}"
        );
        drop(pages.pop());
        until("a seat to be free", PATIENCE, async || {
            let mut page = Page::open(&address).await?;
            let mut line = String::new();
            page.0.read_line(&mut line).await?;
            Ok(line.contains(" 200 ").then_some(()))
        })
        .await?;
        cluster.nodes[0].terminate().await?;
        cluster.start_all()?;
        cluster.leader().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_is_read_and_nothing_else() -> Result<()> {
    scenario(nodes(1), async |cluster| {
        let address = http(cluster, 0);
        for method in ["POST", "PUT", "DELETE"] {
            for path in [
                "/",
                "/console",
                "/console/",
                "/console/console.css",
                "/console/console.js",
                "/console/live",
                "/console/key?of=a",
                "/console/process?of=a",
                "/console/queue?of=a",
            ] {
                let what = format!("{method} {path}");
                let (status, head, body) = answer(&address, &address, &what).await?;
                ensure!(status == 405, "{what}: {status}: {body}");
                ensure!(head.contains("allow: get,head"), "{what}: {head}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_it_shows_what_the_node_has_and_says_so() -> Result<()> {
    scenario(nodes(3), async |cluster| {
        let client: Client = cluster.client()?;
        let token = claim(&client, "ship", "captain", 600_000)
            .await?
            .to_string();
        client.process("voyage")?.register("").await?;
        client.queue("cargo")?.push("a barrel").send().await?;
        let survivor = cluster.follower().await?;
        cluster.caught_up(survivor).await?;
        for node in 0..cluster.nodes.len() {
            if node != survivor {
                cluster.nodes[node].kill()?;
            }
        }

        let address = http(cluster, survivor);
        let mut page = Page::open(&address).await?;
        let part = page.part("cluster", |part| part["fresh"] == false).await?;
        let members = part["members"].as_array().context("members")?;
        ensure!(members.len() == 3, "{part}");
        // A page that is opened now has all tables, of the same look.
        let mut page = Page::open(&address).await?;
        page.part("cluster", |part| part["fresh"] == false).await?;
        let part = page
            .part("leases", |part| row(part, "ship").is_some())
            .await?;
        ensure!(row(&part, "ship").context("seen")?["token"] == *token);
        for (table, name) in [("processes", "voyage"), ("queues", "cargo")] {
            page.part(table, |part| part.to_string().contains(name))
                .await?;
        }

        for path in [
            "/console/key?of=ship",
            "/console/process?of=voyage",
            "/console/queue?of=cargo",
        ] {
            let shown = json(&address, path).await?;
            ensure!(shown["fresh"] == false, "{path}: {shown}");
        }
        let story = json(&address, "/console/key?of=ship").await?;
        ensure!(story["lease"]["owner"] == "captain", "{story}");
        ensure!(get(&address, "/console/").await?.0 == 200, "the page");
        // That nobody leads it knows after a while, and the page is still there then.
        until("the node to be ready no longer", PATIENCE, async || {
            let (status, ..) = get(&address, "/readyz").await?;
            Ok((status == 503).then_some(()))
        })
        .await?;
        ensure!(json(&address, "/console/key?of=ship").await?["fresh"] == false);
        Ok(())
    })
    .await
}
