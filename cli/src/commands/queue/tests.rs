//! Every test runs against the real state machine.

use std::time::Duration;

use quorate_client::testing::MemoryTransport;
use serde_json::{Value, json};

use super::*;
use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::output::{Captured, Format};

/// Runs `quorate queue LINE -o json` and returns what it printed and its exit code.
async fn queue(client: &Client, line: &str) -> (Value, u8) {
    let words = ["quorate", "queue"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::read_from(words).expect("the line is right");
    let Command::Queue(verb) = cli.command else {
        panic!("it is a queue verb");
    };
    let captured = Captured::default();
    let result = run(client, verb, &mut captured.printer(Format::Json)).await;
    let exit = result.map_or_else(|failure| failure.exit() as u8, |()| 0);
    (
        serde_json::from_str(&captured.take()).unwrap_or(Value::Null),
        exit,
    )
}

async fn push(client: &Client, line: &str) -> String {
    let (pushed, exit) = queue(client, &format!("push {line}")).await;
    assert_eq!(exit, 0, "{line}");
    pushed["item_id"].as_str().expect("a string").to_owned()
}

fn client() -> Client {
    Client::new(MemoryTransport::new())
}

#[tokio::test(start_paused = true)]
async fn a_claim_prints_a_list_with_the_fields_that_scripts_rely_on() {
    let client = client();
    let item = push(
        &client,
        r#"q --payload {"n":18446744073709551615} --priority 3"#,
    )
    .await;
    let (items, exit) = queue(&client, "claim q --owner w --ttl 30s").await;
    assert_eq!(exit, 0);
    let claimed = &items[0];
    let expected = json!({
        "queue": "q", "item_id": item, "state": "claimed", "attempts": 1, "priority": 3,
        "payload": {"n": u64::MAX}, "available_at": "2023-11-14T22:13:20.000Z",
        "fencing_token": "2", "owner_id": "w", "expires_at": "2023-11-14T22:13:50.000Z",
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&claimed[field], value, "{field}");
    }
    assert_eq!(
        queue(&client, "claim q --owner w --ttl 30s").await,
        (json!([]), 4)
    );
    assert_eq!(
        queue(&client, "claim nowhere --owner w --ttl 30s").await,
        (json!([]), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn a_blocking_claim_gets_what_becomes_ready_or_gives_up() {
    let client = client();
    push(&client, "q --payload 1 --delay 5s").await;
    let claim = queue(&client, "claim q --owner w --ttl 30s --wait 2s");
    assert_eq!(claim.await, (json!([]), 4));
    let waiting = client.clone();
    let waiting =
        tokio::spawn(
            async move { queue(&waiting, "claim q --owner w --ttl 30s --wait 60s").await },
        );
    tokio::task::yield_now().await;
    push(&client, "q --payload 2").await;
    let (items, exit) = waiting.await.expect("no panic");
    assert_eq!((exit, items.as_array().map(Vec::len)), (0, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn an_item_is_settled_done_retried_or_dead() {
    let client = client();
    let ends = [
        ("", "done"),
        ("--retry-in 1h", "retried"),
        ("--dead --note x", "dead"),
    ];
    for (flags, state) in ends {
        let item = push(&client, "q --payload 1").await;
        let (items, _) = queue(&client, "claim q --owner w --ttl 30s").await;
        let token = items[0]["fencing_token"]
            .as_str()
            .expect("a string")
            .to_owned();
        let line = format!("settle q {item} --token {token} {flags}");
        let (settled, exit) = queue(&client, &line).await;
        assert_eq!((&settled["state"], exit), (&json!(state), 0));
        let again = queue(&client, &line).await.1;
        assert!(again == 3 || again == 5, "the claim is over: {again}");
    }
    let (dead, _) = queue(&client, "dead q").await;
    assert_eq!(
        (&dead[0]["state"], &dead[0]["note"]),
        (&json!("dead"), &json!("x"))
    );
    let item = dead[0]["item_id"].as_str().expect("a string");
    assert_eq!(
        queue(&client, &format!("requeue q {item}")).await.0["state"],
        "ready"
    );
    assert_eq!(queue(&client, &format!("requeue q {item}")).await.1, 5);
    let (queues, _) = queue(&client, "list").await;
    assert_eq!(
        (&queues[0]["ready"], &queues[0]["done"]),
        (&json!("1"), &json!("1"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_renewed_for_its_own_time_unless_told_otherwise() {
    let client = client();
    let item = push(&client, "q --payload 1").await;
    let (items, _) = queue(&client, "claim q --owner w --ttl 30s").await;
    let token = items[0]["fencing_token"]
        .as_str()
        .expect("a string")
        .to_owned();
    tokio::time::advance(Duration::from_secs(10)).await;
    let (renewed, exit) = queue(&client, &format!("renew q {item} --token {token}")).await;
    assert_eq!((exit, &renewed["ttl_ms"]), (0, &json!("30000")));
    assert_eq!(renewed["expires_at"], "2023-11-14T22:14:00.000Z");
    let (renewed, _) = queue(&client, &format!("renew q {item} --token {token} --ttl 1m")).await;
    assert_eq!(renewed["ttl_ms"], "60000");
    assert_eq!(
        queue(&client, &format!("renew q {item} --token 999"))
            .await
            .1,
        5
    );
    assert_eq!(queue(&client, "renew q 1 --token 999").await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn peeking_claims_nothing_and_cancelling_takes_out() {
    let client = client();
    let low = push(&client, "q --payload low").await;
    let high = push(&client, "q --payload high --priority 9 --key once").await;
    let (again, _) = queue(&client, "push q --payload high --key once").await;
    assert_eq!(
        (&again["item_id"], &again["duplicate"]),
        (&json!(high), &json!(true))
    );
    let (items, _) = queue(&client, "peek q").await;
    assert_eq!(
        (&items[0]["item_id"], &items[1]["item_id"]),
        (&json!(high), &json!(low))
    );
    assert_eq!(
        (&items[0]["payload"], &items[0]["attempts"]),
        (&json!("high"), &json!(0))
    );
    assert_eq!(
        queue(&client, "peek q --limit 1")
            .await
            .0
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(queue(&client, &format!("cancel q {low} --yes")).await.1, 0);
    assert_eq!(queue(&client, &format!("cancel q {low} --yes")).await.1, 3);
    queue(&client, "claim q --owner w --ttl 30s").await;
    assert_eq!(queue(&client, &format!("cancel q {high} --yes")).await.1, 5);
    assert_eq!(
        queue(&client, "peek q --state claimed")
            .await
            .0
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(queue(&client, "peek nowhere").await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn arguments_out_of_bounds_are_exit_code_2() {
    let client = client();
    for line in [
        "claim q --owner w --ttl 0s",
        "claim q --owner w --ttl 30s --max 0",
        "claim q --owner w --ttl 30s --max 257",
        "push q --payload 1 --delay 31d",
    ] {
        assert_eq!(queue(&client, line).await.1, Exit::Invalid as u8, "{line}");
    }
    let large = format!("push q --payload {}", "x".repeat((1 << 20) + 1));
    assert_eq!(queue(&client, &large).await.1, Exit::Invalid as u8);
}
