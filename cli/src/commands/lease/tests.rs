//! Every test runs against the real state machine.

use std::time::Duration;

use quorate_client::testing::MemoryTransport;
use serde_json::Value;

use super::*;
use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::output::{Captured, Format};

/// Runs `quorate lease LINE -o json` and returns what it printed and how it ended.
async fn lease(client: &Client, line: &str) -> (Value, Result<(), Failure>) {
    let (printed, result) = print(client, line, Format::Json).await;
    (
        serde_json::from_str(&printed).unwrap_or(Value::Null),
        result,
    )
}

async fn print(client: &Client, line: &str, format: Format) -> (String, Result<(), Failure>) {
    let words = ["quorate", "lease"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::read_from(words).expect("the line is right");
    let Command::Lease(verb) = cli.command else {
        panic!("it is a lease verb");
    };
    let captured = Captured::default();
    let result = run(client, verb, &mut captured.printer(format)).await;
    (captured.take(), result)
}

fn exit((_, result): (Value, Result<(), Failure>)) -> u8 {
    result.map_or_else(|failure| failure.exit() as u8, |()| 0)
}

fn client() -> (Client, MemoryTransport) {
    let transport = MemoryTransport::new();
    (Client::new(transport.clone()), transport)
}

async fn claimed(client: &Client, line: &str) -> String {
    let (lease, result) = lease(client, line).await;
    assert_eq!(result, Ok(()), "{line}");
    lease["fencing_token"]
        .as_str()
        .expect("a string")
        .to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_lease_has_the_fields_that_scripts_rely_on() {
    let (client, _) = client();
    let line = "claim k --owner a --ttl 10s --lease-token t";
    let (printed, result) = print(&client, line, Format::Json).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        printed,
        "{\"key\":\"k\",\"owner_id\":\"a\",\"incarnation_id\":\"a\",\"lease_token\":\"t\",\
         \"fencing_token\":\"1\",\"ttl_ms\":\"10000\",\"granted_at\":\"2023-11-14T22:13:20.000Z\",\
         \"renewed_at\":\"2023-11-14T22:13:20.000Z\",\"expires_at\":\"2023-11-14T22:13:30.000Z\",\
         \"remaining_ms\":\"10000\",\"renewals\":\"0\",\"epoch\":\"1\"}\n"
    );
    tokio::time::advance(Duration::from_secs(4)).await;
    let (shown, result) = lease(&client, "get k").await;
    assert_eq!(result, Ok(()));
    assert_eq!(shown["remaining_ms"], "6000");
    let (table, _) = print(&client, "get k", Format::Table).await;
    assert_eq!(
        table,
        "KEY  OWNER  INCARNATION  TOKEN  REMAINING  EXPIRES AT                RENEWALS\n\
         k    a      a            1      6s         2023-11-14T22:13:30.000Z  0\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_claim_prints_the_holder_and_exits_with_4() {
    let (client, _) = client();
    let token = claimed(&client, "claim k --owner a --ttl 10s").await;
    tokio::time::advance(Duration::from_secs(3)).await;
    let (holder, result) = lease(&client, "claim k --owner b --ttl 10s").await;
    let failure = result.expect_err("it is held");
    assert_eq!(failure.exit(), Exit::Contention);
    assert_eq!(
        failure.message(),
        format!(
            "lease \"k\" is held by \"a\" with fencing token {token}, for 7s more unless renewed"
        )
    );
    assert_eq!(holder["owner_id"], "a");
    assert_eq!(holder["remaining_ms"], "7000");
}

#[tokio::test(start_paused = true)]
async fn the_same_owner_gets_what_it_asks_for() {
    let (client, _) = client();
    let first = claimed(&client, "claim k --owner a --ttl 10s").await;
    assert_eq!(claimed(&client, "claim k --owner a --ttl 20s").await, first);
    assert_eq!(
        exit(lease(&client, "claim k --owner a --ttl 1s --same-owner busy").await),
        4
    );
    let fresh = claimed(&client, "claim k --owner a --ttl 1s --same-owner fresh").await;
    assert!(fresh.parse::<u64>().expect("a number") > first.parse().expect("a number"));
    assert_eq!(
        exit(lease(&client, "claim k --owner a --incarnation 2 --ttl 1s").await),
        4
    );
}

#[tokio::test(start_paused = true)]
async fn the_fencing_token_alone_renews_and_releases() {
    let (client, _) = client();
    let token = claimed(&client, "claim k --owner a --ttl 10s").await;
    tokio::time::advance(Duration::from_secs(4)).await;
    let (renewed, result) = lease(&client, &format!("renew k --token {token}")).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        (&renewed["remaining_ms"], &renewed["ttl_ms"]),
        (&"10000".into(), &"10000".into())
    );
    let (renewed, _) = lease(&client, &format!("renew k --token {token} --ttl 1m")).await;
    assert_eq!(renewed["ttl_ms"], "60000");
    for _ in 0..2 {
        let (released, result) = lease(&client, &format!("release k --token {token}")).await;
        assert_eq!(result, Ok(()), "released now or before is the same");
        assert_eq!(released["released"], true);
    }
    assert_eq!(exit(lease(&client, "get k").await), 3);
    assert_eq!(
        exit(lease(&client, &format!("renew k --token {token}")).await),
        5
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_exit_code_5() {
    let (client, _) = client();
    let old = claimed(&client, "claim k --owner a --ttl 1s").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(
        exit(lease(&client, &format!("renew k --token {old}")).await),
        5
    );
    assert_eq!(
        exit(lease(&client, &format!("release k --token {old}")).await),
        5
    );
    claimed(&client, "claim k --owner b --ttl 10s").await;
    assert_eq!(
        exit(lease(&client, &format!("release k --token {old}")).await),
        5
    );
    assert_eq!(exit(lease(&client, "release k --token 999").await), 5);
    assert_eq!(exit(lease(&client, "release never --token 1").await), 5);
}

#[tokio::test(start_paused = true)]
async fn arguments_out_of_bounds_state_limit_and_actual() {
    let (client, _) = client();
    let long = "k".repeat(513);
    for (line, words) in [
        (
            format!("claim {long} --owner a --ttl 1s"),
            "key is too long: limit 512 bytes, actual 513 bytes",
        ),
        (
            "claim k --owner a --ttl 0s".to_owned(),
            "ttl_ms is out of range: limit 1 to 86400000 ms, actual 0 ms",
        ),
        (
            "claim k --owner a --ttl 25h".to_owned(),
            "ttl_ms is out of range: limit 1 to 86400000 ms, actual 90000000 ms",
        ),
        (
            format!("get {long}"),
            "key is too long: limit 512 bytes, actual 513 bytes",
        ),
    ] {
        let (_, result) = lease(&client, &line).await;
        let failure = result.expect_err("out of bounds");
        assert_eq!((failure.exit(), failure.message()), (Exit::Invalid, words));
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_revokes_only_with_a_word() {
    let (client, _) = client();
    let token = claimed(&client, "claim k --owner a --ttl 10s").await;
    assert_eq!(exit(lease(&client, "revoke k --yes --token 999").await), 5);
    let (revoked, result) = lease(&client, "revoke k --yes --by ops").await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        (&revoked["owner_id"], &revoked["remaining_ms"]),
        (&"a".into(), &"0".into())
    );
    assert_eq!(exit(lease(&client, "revoke k --yes").await), 3);
    let (history, _) = lease(&client, "history k").await;
    assert_eq!(history[0]["fencing_token"], token.as_str());
    assert_eq!(
        (&history[0]["reason"], &history[0]["by"]),
        (&"revoked".into(), &"ops".into())
    );
}

#[tokio::test(start_paused = true)]
async fn listings_go_over_pages_and_stop_at_their_limit() {
    let (client, _) = client();
    for number in 0..1_003 {
        claimed(
            &client,
            &format!("claim jobs/{number:04} --owner a --ttl 1h"),
        )
        .await;
    }
    claimed(&client, "claim other --owner a --ttl 1h").await;
    let count = |(rows, _): &(Value, _)| rows.as_array().map(Vec::len);
    assert_eq!(count(&lease(&client, "list").await), Some(1_004));
    assert_eq!(count(&lease(&client, "list jobs/").await), Some(1_003));
    assert_eq!(
        count(&lease(&client, "list --limit 1001").await),
        Some(1_001)
    );
    assert_eq!(count(&lease(&client, "list nothing").await), Some(0));
    let (names, _) = print(&client, "list jobs/000 --limit 2", Format::Name).await;
    assert_eq!(names, "jobs/0000\njobs/0001\n");
}

#[tokio::test(start_paused = true)]
async fn explain_is_text_for_people_and_json_for_scripts() {
    let (client, _) = client();
    claimed(&client, "claim k --owner a --ttl 10s").await;
    let (text, _) = print(&client, "explain k", Format::Table).await;
    assert_eq!(
        text,
        "Lease \"k\" is held by \"a\", with fencing token 1, since 2023-11-14T22:13:20.000Z (0ms \
         ago).\nIt was not renewed yet.\nIt has 10s left of its time to live of 10s: unless it is \
         renewed or released, it ends at 2023-11-14T22:13:30.000Z.\n"
    );
    let (explained, result) = lease(&client, "explain k").await;
    assert_eq!(result, Ok(()));
    assert_eq!(explained["lease"]["owner_id"], "a");
    assert_eq!(explained["sentences"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_a_leader_is_exit_code_7() {
    let (client, transport) = client();
    transport.set_down(true);
    let client = client.with_timeout(Duration::from_millis(200));
    let code = exit(lease(&client, "get k").await);
    assert_eq!(code, 7);
}
