//! lash's own suite, and what it leaves out, on an embedded node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lash_core::testing::conformance::{ReopenableProcessRegistry, process_registry_reopenable};
use lash_core::{
    LashSchema, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessInput,
    ProcessLeaseCompletion, ProcessProvenance, ProcessRegistration, ProcessRegistry, SessionScope,
};
use quorate_client::Client;
use quorate_lash::{FencingTokens, QuorateProcesses};
use quorate_node::Node;
use serde_json::json;
use tempfile::TempDir;

#[path = "../examples/worker.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod worker;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const TTL_MS: u64 = 60_000;

/// Nothing in these tests takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

async fn node() -> Result<(TempDir, Node)> {
    let dir = tempfile::tempdir()?;
    let node = Node::builder().data_dir(dir.path()).start().await?;
    Ok((dir, node))
}

fn registry(client: &Client, namespace: &str) -> QuorateProcesses {
    let built = QuorateProcesses::over(client.clone())
        .namespace(namespace)
        .build();
    built.expect("the options are right")
}

/// Two handles on a store that nobody else has.
fn fresh(client: &Client, tokens: FencingTokens) -> impl Fn() -> ReopenableProcessRegistry {
    let (client, made) = (client.clone(), AtomicUsize::new(0));
    move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let handle = || {
            let built = QuorateProcesses::over(client.clone())
                .namespace(format!("{tokens:?}-{number}"))
                .fencing_tokens(tokens)
                .build();
            Arc::new(built.expect("the options are right"))
        };
        ReopenableProcessRegistry {
            open: handle(),
            reopen: handle(),
        }
    }
}

fn registration(id: &str) -> ProcessRegistration {
    let metadata = json!({ "label": id });
    let input = ProcessInput::External { metadata };
    let note = ProcessEventType {
        name: "note".to_owned(),
        payload_schema: LashSchema::any(),
        semantics: Default::default(),
    };
    ProcessRegistration::new(id, input, ProcessProvenance::host()).with_extra_event_types([note])
}

fn note(number: u64) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("note", json!({ "number": number }))
}

fn success() -> ProcessAwaitOutput {
    ProcessAwaitOutput::Success {
        value: json!("done"),
        control: None,
    }
}

#[tokio::test]
async fn the_suite_passes_on_a_runtime_of_one_thread() -> Result {
    let (_dir, node) = node().await?;
    process_registry_reopenable(fresh(&node.client(), FencingTokens::LogIndex)).await;
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_with_epochs_for_fencing_tokens() -> Result {
    let (_dir, node) = node().await?;
    process_registry_reopenable(fresh(&node.client(), FencingTokens::Epoch)).await;
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_lease_is_over_is_not_heard() -> Result {
    let (_dir, node) = node().await?;
    let registry = registry(&node.client(), "workers");
    registry.register_process(registration("p")).await?;
    // It pauses for longer than its TTL: the other one gets the lease when the cluster ends it.
    let first = registry.claim_process_lease("p", "first", 100).await?;
    let late = registry.fenced_by(&first)?;
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        match registry.claim_process_lease("p", "second", TTL_MS).await {
            Ok(lease) => break lease,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert!(second.fencing_token > first.fencing_token);
    let before = registry.get_process("p").await.ok_or("it is registered")?;

    let error = late.append_event("p", note(1)).await.expect_err("fenced");
    assert!(error.to_string().contains("is stale"), "{error}");
    let error = late.renew_process_lease(&first, TTL_MS).await;
    let error = error.expect_err("expired").to_string();
    assert!(error.contains("missing or expired"), "{error}");
    late.complete_process("p", success())
        .await
        .expect_err("fenced");
    let release = ProcessLeaseCompletion::from_lease(&first);
    late.complete_process_lease(&release).await?;

    let after = registry.get_process("p").await.ok_or("it is registered")?;
    assert_eq!(serde_json::to_value(before)?, serde_json::to_value(after)?);
    assert!(registry.events_after("p", 0).await?.is_empty());
    // The live lease is as it was, and so is its holder's right to write.
    let own = registry.fenced_by(&second)?;
    own.renew_process_lease(&second, TTL_MS).await?;
    own.append_event("p", note(1)).await?;
    own.complete_process("p", success()).await?;
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fencing_concerns_the_process_of_the_lease_alone() -> Result {
    let (_dir, node) = node().await?;
    let registry = registry(&node.client(), "two");
    for id in ["p", "q"] {
        registry.register_process(registration(id)).await?;
    }
    let lease = registry.claim_process_lease("p", "w", 0).await?;
    let fenced = registry.fenced_by(&lease)?;
    fenced.append_event("q", note(1)).await?;
    fenced
        .append_event("p", note(1))
        .await
        .expect_err("it is over");
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_see_nothing_of_each_other() -> Result {
    let (_dir, node) = node().await?;
    let (one, other) = (
        registry(&node.client(), "one"),
        registry(&node.client(), "other"),
    );
    one.register_process(registration("p")).await?;
    let scope = SessionScope::new("s");
    one.grant_handle(&scope, "p", Default::default()).await?;
    one.claim_process_lease("p", "w", TTL_MS).await?;
    assert!(other.get_process("p").await.is_none());
    assert!(other.list_non_terminal().await?.is_empty());
    assert!(!other.has_handle_grant(&scope, "p").await?);
    let error = other.claim_process_lease("p", "w", TTL_MS).await;
    let error = error.expect_err("it is registered elsewhere").to_string();
    assert!(error.contains("unknown process `p`"), "{error}");
    let report = other.delete_session_process_state("s").await?;
    assert_eq!(report.revoked_handle_count, 0);
    assert!(one.has_handle_grant(&scope, "p").await?);
    for wrong in ["", "a/b", "a\nb"] {
        let built = QuorateProcesses::over(node.client())
            .namespace(wrong)
            .build();
        assert!(built.is_err(), "{wrong:?}");
    }
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_bounds_is_refused_with_both_numbers() -> Result {
    let (_dir, node) = node().await?;
    let registry = registry(&node.client(), "bounds");
    registry.register_process(registration("p")).await?;
    let long = "x".repeat(600);
    let error = registry.register_process(registration(&long)).await;
    let error = error.expect_err("too long").to_string();
    assert!(
        error.contains("512 bytes") && error.contains("607 bytes"),
        "{error}"
    );
    let large = ProcessEventAppendRequest::new("note", json!("x".repeat(2 << 20)));
    let error = registry.append_event("p", large).await;
    let error = error.expect_err("too large").to_string();
    assert!(error.contains("limit 1048576 bytes"), "{error}");
    let error = registry.claim_process_lease("p", "w", u64::MAX).await;
    let error = error.expect_err("too long").to_string();
    assert!(error.contains("limit 0 to 86399950"), "{error}");
    for token in ["", "x", "x.y", "nobody.7"] {
        let lease = lash_core::ProcessLease {
            lease_token: token.to_owned(),
            ..registry.claim_process_lease("p", "w", TTL_MS).await?
        };
        let error = registry.renew_process_lease(&lease, TTL_MS).await;
        let error = error.expect_err("nobody's").to_string();
        assert!(error.contains("missing or expired"), "{error}");
        let done = ProcessLeaseCompletion::from_lease(&lease);
        registry.complete_process_lease(&done).await?;
    }
    assert!(registry.events_after("p", 0).await?.is_empty());
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_for_one_end_and_those_who_give_up_leave_nothing() -> Result {
    let (_dir, node) = node().await?;
    let registry = registry(&node.client(), "waits");
    registry.register_process(registration("p")).await?;
    let waiters: Vec<_> = (0..200)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.await_process("p").await })
        })
        .collect();
    for _ in 0..50 {
        let given_up = registry.wait_event_after("p", "note", 0);
        let waited = tokio::time::timeout(Duration::from_millis(1), given_up).await;
        assert!(waited.is_err(), "nobody appended");
    }
    registry.append_event("p", note(1)).await?;
    let event = registry.wait_event_after("p", "note", 0).await?;
    assert_eq!(event.sequence, 1);
    registry.complete_process("p", success()).await?;
    for waiter in waiters {
        assert_eq!(waiter.await??, success());
    }
    let error = registry.await_process("nobody").await;
    let error = error.expect_err("it is not registered").to_string();
    assert!(error.contains("unknown process `nobody`"), "{error}");
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_did_is_shown_to_lash() -> Result {
    let (_dir, node) = node().await?;
    let client = node.client();
    let registry = registry(&client, "lash");
    registry.register_process(registration("p")).await?;
    registry.register_process(registration("q")).await?;
    let process = client.process("lash/p")?;
    let state = quorate_statemachine::process::ProcessState::Cancelled;
    process.complete(state, "by hand").await?;
    let output = registry.await_process("p").await?;
    let ProcessAwaitOutput::Cancelled { message, .. } = output else {
        return Err(format!("{output:?}").into());
    };
    assert_eq!(message, "by hand");
    // A row that is not lash's keeps no other from a recovery.
    client.process("lash/stray")?.register("not JSON").await?;
    let live = registry.list_non_terminal().await?;
    let live: Vec<_> = live.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(live, ["q"]);
    assert!(registry.get_process("stray").await.is_none());
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_finishes_what_is_there_once() -> Result {
    let (_dir, node) = node().await?;
    let registry = registry(&node.client(), "example");
    for id in ["a", "b"] {
        worker::submit(&registry, id).await?;
        worker::submit(&registry, id).await?;
    }
    // Another worker has `b`, and did its first step.
    let other = registry.claim_process_lease("b", "other", TTL_MS).await?;
    let step = ProcessEventAppendRequest::new("step", json!({ "number": 1 }));
    let step = step.with_replay_key("step-1");
    registry.fenced_by(&other)?.append_event("b", step).await?;
    assert_eq!(worker::work(&registry, "w").await?, 1);
    let done = ProcessLeaseCompletion::from_lease(&other);
    registry.complete_process_lease(&done).await?;
    assert_eq!(worker::work(&registry, "w").await?, 1);
    assert_eq!(worker::work(&registry, "w").await?, 0);
    for id in ["a", "b"] {
        let events = registry.events_after(id, 0).await?;
        let types: Vec<_> = events
            .iter()
            .map(|event| event.event_type.as_str())
            .collect();
        assert_eq!(types, ["step", "step", "step", "process.completed"], "{id}");
    }
    node.shutdown().await;
    Ok(())
}
