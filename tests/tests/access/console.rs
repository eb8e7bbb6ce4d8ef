//! The web console while access is controlled.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_client::Bearer;
use quorate_statemachine::access::{Noun, RevokeToken, Verb};
use quorate_statemachine::lease::Claimed;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{NODE, Users, claim, client_of, name, put_role, put_user, rule};

/// The password of a browser is the token; a program shows it as it is.
async fn ask(address: &str, path: &str, shown: Option<&str>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let shown = shown.map(|shown| format!("authorization: {shown}\r\n"));
    let shown = shown.unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{shown}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Status, and all that came.
async fn get(address: &str, path: &str, shown: Option<&str>) -> Result<(u16, String)> {
    let mut answer = String::new();
    let mut stream = ask(address, path, shown).await?;
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer))
}

fn bearer(token: &Bearer) -> String {
    format!("Bearer {}", token.expose())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_a_token_and_shows_what_its_user_may_read() -> Result<()> {
    let options = Options::new(NODE, 1).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
    });
    scenario(options, async |cluster| {
        let http = cluster.nodes[0].config().listen.http.clone();
        let (status, _) = get(&http, "/console/key?of=k", None).await?;
        ensure!(status == 200, "it is off, and all may look: {status}");
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        ann.execute(claim("build/x")).await?;
        for path in ["/console/", "/console/live", "/console/key?of=k"] {
            let (status, answer) = get(&http, path, None).await?;
            ensure!(status == 401, "{path}: {answer}");
            ensure!(answer.contains("www-authenticate: Basic"), "{answer}");
            let (status, _) = get(&http, path, Some("Basic aHVudGVyMg==")).await?;
            ensure!(status == 401, "{path}: {status}");
            let (status, answer) = get(&http, path, Some(&bearer(&users.ci))).await?;
            ensure!(status == 403, "{path}: {answer}");
        }
        for open in ["/livez", "/readyz", "/metrics", "/version"] {
            let (status, answer) = get(&http, open, None).await?;
            ensure!(status == 200, "{open}: {answer}");
        }
        let key = "/console/key?of=build/x";
        let (status, answer) = get(&http, key, Some(&bearer(&users.ann))).await?;
        ensure!(status == 200 && answer.contains("build/x"), "{answer}");
        // As a browser shows it: any name, and the token as the password.
        let basic =
            |password: &str| format!("Basic {}", STANDARD.encode(format!("any:{password}")));
        let (status, answer) = get(&http, key, Some(&basic(&users.ann.expose()))).await?;
        ensure!(status == 200, "{answer}");
        let (status, answer) = get(&http, key, Some(&basic("hunter2"))).await?;
        ensure!(status == 401, "{answer}");

        // One that may look at the cluster, and at no process.
        let looks = vec![
            rule(Verb::Read, Noun::Cluster, ""),
            rule(Verb::Read, Noun::Lease, ""),
        ];
        put_role(&ann, "looker", looks).await?;
        put_user(&ann, "eve", "looker").await?;
        let (eve, _) = ann.create_token(name("eve"), None).await?;
        let (status, _) = get(&http, "/console/process?of=p", Some(&bearer(&eve))).await?;
        ensure!(status == 403, "{status}");
        let (status, answer) = get(&http, key, Some(&bearer(&eve))).await?;
        let half = answer.contains("\"lock_hidden\":true") && answer.contains("\"owner\":\"w\"");
        ensure!(status == 200 && half, "leases she may read: {answer}");
        live_ends_with_its_token(&http, &eve, async || {
            let id = eve.id().clone();
            ann.execute(RevokeToken { id }).await.map(drop)
        })
        .await
    })
    .await
}

/// Asks for something to be done; status, and what was said. `as_page` adds what the page adds.
async fn act(
    http: &str,
    token: Option<&Bearer>,
    as_page: bool,
    what: &Value,
) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(http).await?;
    let shown = token.map(|token| format!("authorization: {}\r\n", bearer(token)));
    let (shown, body) = (shown.unwrap_or_default(), what.to_string());
    let page = if as_page {
        "x-quorate-console: act\r\n"
    } else {
        ""
    };
    let request = format!(
        "POST /console/act HTTP/1.1\r\nhost: {http}\r\n{shown}{page}content-type: \
         application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_changes_something_and_nobody_else_does() -> Result<()> {
    let options = Options::new(NODE, 1).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
    });
    scenario(options, async |cluster| {
        let http = cluster.nodes[0].config().listen.http.clone();
        let nobody = json!({"do": "cancel", "queue": "jobs", "item": "1"});
        let (status, said) = act(&http, None, true, &nobody).await?;
        ensure!(status == 403 && said.contains("not controlled"), "{said}");

        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        let Claimed::Granted(lease) = ann.execute(claim("build/x")).await? else {
            bail!("nobody else wants it");
        };
        let looks = vec![
            rule(Verb::Read, Noun::Cluster, ""),
            rule(Verb::Write, Noun::Lease, ""),
        ];
        put_role(&ann, "looker", looks).await?;
        put_user(&ann, "eve", "looker").await?;
        let (eve, _) = ann.create_token(name("eve"), None).await?;
        let token = lease.fencing_token;
        let revoke = |token: u64| {
            let token = token.to_string();
            json!({"do": "revoke_lease", "key": "build/x", "token": token})
        };
        for (who, as_page, token, expected) in [
            (None, true, token, 401),
            (Some(&users.ci), true, token, 403),
            (Some(&eve), true, token, 403),
            (Some(&users.ann), false, token, 403),
            (Some(&users.ann), true, token + 1, 409),
        ] {
            let (status, said) = act(&http, who, as_page, &revoke(token)).await?;
            ensure!(status == expected, "{status}, not {expected}: {said}");
            let held = ann.lease_get(&name("build/x")).await?;
            ensure!(held.is_some(), "it was revoked: {said}");
        }
        let (status, said) = act(&http, Some(&users.ann), true, &revoke(token)).await?;
        ensure!(status == 200, "{said}");
        ensure!(ann.lease_get(&name("build/x")).await?.is_none(), "{said}");
        let (_, story) = get(&http, "/console/key?of=build/x", Some(&bearer(&users.ann))).await?;
        ensure!(story.contains("ann (console)"), "{story}");

        let pushed = ann.queue("jobs")?.push("x").send().await?;
        let item = pushed.item_id.to_string();
        let cancel = |item: &str| json!({"do": "cancel", "queue": "jobs", "item": item});
        for (item, expected) in [("x", 400), (&*item, 200), (&*item, 409)] {
            let (status, said) = act(&http, Some(&users.ann), true, &cancel(item)).await?;
            ensure!(status == expected, "{item}: {said}");
        }
        Ok(())
    })
    .await
}

async fn live_ends_with_its_token(
    http: &str,
    token: &Bearer,
    revoke: impl AsyncFn() -> Result<(), quorate_client::ClientError>,
) -> Result<()> {
    let stream = ask(http, "/console/live", Some(&bearer(token))).await?;
    let mut lines = BufReader::new(stream).lines();
    let mut seen = String::new();
    let mut until_line = async |wanted: &str| {
        while let Some(line) = lines.next_line().await? {
            seen += &line;
            if line.contains(wanted) {
                return anyhow::Ok(true);
            }
        }
        anyhow::Ok(false)
    };
    ensure!(timeout(PATIENCE, until_line("build/x")).await??, "no lease");
    revoke().await?;
    let again = timeout(PATIENCE, until_line("never printed")).await??;
    ensure!(!again, "it goes on");
    until("the token to be refused", PATIENCE, async || {
        let (status, _) = get(http, "/console/live", Some(&bearer(token))).await?;
        Ok((status == 401).then_some(()))
    })
    .await
}
