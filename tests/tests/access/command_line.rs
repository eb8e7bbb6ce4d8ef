//! The command line, as an operator would go about it.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::program::{self, printed, run};
use serde_json::Value;

use super::{NODE, Users};

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_switches_it_on_and_keeps_secrets() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let endpoint = cluster.nodes[0].client_addr().to_owned();
        let file = cluster.dir().join("ann.token");
        let file = file.to_str().context("a path in UTF-8")?;
        let call = async |line: &str| {
            let args: Vec<&str> = line.split(' ').collect();
            run(program::quorate(NODE), &endpoint, &args).await
        };
        printed(&call("access role put root --rule admin:*").await?)?;
        printed(&call("access user put ann --role root").await?)?;
        let refused = call("access enable --yes").await?;
        ensure!(refused.status.code() == Some(5), "{refused:?}");

        let made = printed(&call(&format!("access token create ann --out {file}")).await?)?;
        let secret = std::fs::read_to_string(file)?;
        ensure!(!made.contains(secret.trim()), "{made}");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file)?);
        ensure!(mode & 0o077 == 0, "{mode:o}");
        let again = call(&format!("access token create ann --out {file}")).await?;
        ensure!(!again.status.success(), "the file is there: {again:?}");

        let with = format!("--token-file {file}");
        let on = printed(&call(&format!("{with} access enable --yes -o json")).await?)?;
        ensure!(on.contains("\"enabled\":true"), "{on}");
        let stranger = call("lease claim k --owner o --ttl 5m").await?;
        let words = String::from_utf8_lossy(&stranger.stderr).into_owned();
        ensure!(stranger.status.code() == Some(6), "{stranger:?}");
        ensure!(
            words.contains("--token-file"),
            "it says what to do: {words}"
        );
        printed(&call(&format!("{with} lease claim k --owner o --ttl 5m")).await?)?;
        printed(&call(&format!("{with} access user put bob")).await?)?;
        let token = call(&format!("{with} access token create bob -o name")).await?;
        let token = printed(&token)?;
        let bob = cluster.dir().join("bob.token");
        std::fs::write(&bob, &token)?;
        let bob = bob.to_str().context("a path in UTF-8")?;
        let nothing = call(&format!("--token-file {bob} lease get k")).await?;
        ensure!(nothing.status.code() == Some(6), "{nothing:?}");
        let listed = printed(&call(&format!("{with} access token list bob -o json")).await?)?;
        ensure!(!listed.contains(token.trim()), "{listed}");

        // Nothing that a node wrote has a secret in it.
        let log = cluster.nodes[0].stderr()?;
        for secret in [secret.trim(), token.trim()] {
            ensure!(!log.contains(secret), "a secret is in the log");
        }
        audit_tells_it(&call, &with).await?;
        printed(&call(&format!("{with} access disable --yes")).await?)?;
        printed(&call("lease get k").await?)?;
        Ok(())
    })
    .await
}

async fn audit_tells_it(call: &impl AsyncFn(&str) -> Result<Output>, with: &str) -> Result<()> {
    let line = format!("{with} audit --user ann --command lease. -o json");
    let told: Vec<Value> = serde_json::from_str(&printed(&call(&line).await?)?)?;
    ensure!(told.len() == 1, "{told:?}");
    let row = &told[0];
    ensure!(
        row["principal"] == "ann" && row["command"] == "lease.claim",
        "{row}"
    );
    ensure!(
        row["subjects"][0]["key"] == "k" && row["outcome"] == "ok",
        "{row}"
    );
    let denied = call("audit").await?;
    ensure!(denied.status.code() == Some(6), "{denied:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_environment_is_shown_and_a_bad_one_is_not_printed() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let endpoint = cluster.nodes[0].client_addr().to_owned();
        let call = async |token: &str, endpoint: &str| {
            let mut command = tokio::process::Command::new(program::quorate(NODE));
            command
                .args(["access", "status", "-o", "json"])
                .env("QUORATE_ENDPOINTS", endpoint)
                .env("QUORATE_TOKEN", token)
                .stdin(Stdio::null());
            anyhow::Ok(command.output().await?)
        };
        let shown = printed(&call(&users.ann.expose(), &endpoint).await?)?;
        ensure!(shown.contains("\"enabled\":true"), "{shown}");
        let bad = call("hunter2", &endpoint).await?;
        ensure!(bad.status.code() == Some(2), "{bad:?}");
        let words = String::from_utf8_lossy(&bad.stderr).into_owned();
        ensure!(!words.contains("hunter2"), "{words}");
        // An address of a net that nobody has: nothing is sent to it.
        let away = call(&users.ann.expose(), "192.0.2.1:7400").await?;
        ensure!(away.status.code() == Some(2), "{away:?}");
        let words = String::from_utf8_lossy(&away.stderr).into_owned();
        ensure!(words.contains("--insecure-token"), "{words}");
        Ok(())
    })
    .await
}
