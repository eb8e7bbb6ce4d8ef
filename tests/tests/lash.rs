//! lash's `ProcessRegistry` on three real nodes: its own suite, and what that leaves out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use lash_core::testing::conformance::{ReopenableProcessRegistry, process_registry_reopenable};
use lash_core::{
    LashSchema, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessInput,
    ProcessProvenance, ProcessRegistration, ProcessRegistry,
};
use quorate_lash::QuorateProcesses;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::long_form;
use quorate_tests::wait::PATIENCE;
use serde_json::json;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Dies only with its worker.
const TTL_MS: u64 = 60_000;

fn registry(endpoints: &[String], namespace: &str) -> QuorateProcesses {
    let built = QuorateProcesses::connect(endpoints.iter().cloned())
        .namespace(namespace)
        .timeout(PATIENCE)
        .build();
    built.expect("the options are right")
}

/// Two handles, each with connections of its own, on a store that nobody else has.
fn fresh(endpoints: Vec<String>) -> impl Fn() -> ReopenableProcessRegistry {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    move || {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let handle = || Arc::new(registry(&endpoints, &format!("suite-{number}")));
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

fn output() -> ProcessAwaitOutput {
    ProcessAwaitOutput::Success {
        value: json!(1),
        control: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_lash_passes_on_three_nodes() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        process_registry_reopenable(fresh(cluster.endpoints())).await;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_of_lash_passes_while_leaders_are_killed() -> Result<()> {
    const KILLS: usize = 3;
    scenario(Options::new(NODE, 3), async |cluster| {
        let over = Arc::new(AtomicBool::new(false));
        let suites = tokio::spawn({
            let (over, make) = (over.clone(), fresh(cluster.endpoints()));
            async move {
                let mut passed = 0;
                while !over.load(Ordering::Relaxed) {
                    process_registry_reopenable(&make).await;
                    passed += 1;
                }
                passed
            }
        });
        for _ in 0..KILLS {
            cluster.hurt().await?;
        }
        over.store(true, Ordering::Relaxed);
        let passed: usize = suites.await.context("the suite failed")?;
        println!("the suite passed {passed} times beside {KILLS} kills");
        cluster.digests_agree().await
    })
    .await
}

/// `LASH_PROCESSES` and `LASH_EVENTS` are the long form: 1000 and 100.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_many_writers_have_no_gap_and_no_duplicate() -> Result<()> {
    const WRITERS: usize = 16;
    let (processes, events) = (
        long_form("LASH_PROCESSES", 40),
        long_form("LASH_EVENTS", 48),
    );
    scenario(Options::new(NODE, 3), async |cluster| {
        let shared = registry(&cluster.endpoints(), "many");
        for number in 0..processes {
            let registered = shared.register_process(registration(&number.to_string()));
            registered.await?;
        }
        let writers = (0..WRITERS).map(|writer| {
            let registry = registry(&cluster.endpoints(), "many");
            tokio::spawn(write(registry, writer, WRITERS, processes, events))
        });
        let writers: Vec<_> = writers.collect();
        cluster.hurt().await?;
        for written in try_join_all(writers).await? {
            written?;
        }
        let readers = cluster.endpoints();
        let readers = readers.chunks(1).map(|one| registry(one, "many"));
        let readers: Vec<_> = readers.collect();
        for number in 0..processes {
            same_for_all(&readers, &number.to_string(), events).await?;
        }
        cluster.digests_agree().await
    })
    .await
}

/// Appends this writer's share of every process's events, each one twice under its key.
async fn write(
    registry: QuorateProcesses,
    writer: usize,
    writers: usize,
    processes: usize,
    events: usize,
) -> Result<()> {
    for number in (writer..events).step_by(writers) {
        for process in 0..processes {
            let event = ProcessEventAppendRequest::new("note", json!({ "number": number }))
                .with_replay_key(format!("note-{number}"));
            let id = process.to_string();
            let first = registry.append_event(&id, event.clone()).await?;
            let again = registry.append_event(&id, event).await?;
            ensure!(first.event.sequence == again.event.sequence);
        }
    }
    Ok(())
}

async fn same_for_all(readers: &[QuorateProcesses], id: &str, events: usize) -> Result<()> {
    let mut seen: Option<Vec<String>> = None;
    for reader in readers {
        let read = reader.events_after(id, 0).await?;
        let sequences: Vec<u64> = read.iter().map(|event| event.sequence).collect();
        ensure!(
            sequences == (1..=events as u64).collect::<Vec<_>>(),
            "{sequences:?}"
        );
        let order: Vec<String> = read.iter().map(|event| event.payload.to_string()).collect();
        let first = seen.get_or_insert_with(|| order.clone());
        ensure!(*first == order, "{first:?} and {order:?}");
    }
    let mut payloads = seen.unwrap_or_default();
    payloads.sort();
    payloads.dedup();
    ensure!(
        payloads.len() == events,
        "{} different events",
        payloads.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dead_workers_left_is_recovered_once() -> Result<()> {
    const PROCESSES: usize = 30;
    scenario(Options::new(NODE, 3), async |cluster| {
        let dead = registry(&cluster.endpoints(), "recovery");
        for number in 0..PROCESSES {
            let id = format!("{number:02}");
            dead.register_process(registration(&id)).await?;
            dead.claim_process_lease(&id, "dead", 500).await?;
        }
        drop(dead);
        let sweeper = |name: &'static str| {
            let registry = registry(&cluster.endpoints(), "recovery");
            tokio::spawn(sweep(registry, name))
        };
        let sweepers = [sweeper("one"), sweeper("two"), sweeper("three")];
        cluster.hurt().await?;
        let mut done = 0;
        for swept in try_join_all(sweepers).await? {
            done += swept?;
        }
        ensure!(done == PROCESSES, "{done} of {PROCESSES} were finished");
        let registry = registry(&cluster.endpoints(), "recovery");
        for number in 0..PROCESSES {
            let events = registry.events_after(&format!("{number:02}"), 0).await?;
            ensure!(events.len() == 1, "{} ends of {number}", events.len());
        }
        Ok(())
    })
    .await
}

/// Finishes what nobody works on until there is nothing left; how many it finished.
async fn sweep(registry: QuorateProcesses, worker: &'static str) -> Result<usize> {
    let mut done = 0;
    loop {
        let left = registry.list_non_terminal().await?;
        if left.is_empty() {
            return Ok(done);
        }
        for process in &left {
            let lease = registry.claim_process_lease(&process.id, worker, TTL_MS);
            let Ok(lease) = lease.await else { continue };
            // Another one may have finished it between the list and the claim.
            let now = registry.get_process(&process.id).await;
            if now.context("it is registered")?.is_terminal() {
                continue;
            }
            let fenced = registry.fenced_by(&lease)?;
            fenced.complete_process(&process.id, output()).await?;
            done += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_through_a_time_without_a_leader() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        // A call of another kind would give up at once: lash takes any error for a lost lease.
        let registry = QuorateProcesses::connect(cluster.endpoints())
            .timeout(Duration::from_millis(100))
            .build()?;
        let patient = self::registry(&cluster.endpoints(), "lash");
        patient.register_process(registration("p")).await?;
        let mut lease = patient.claim_process_lease("p", "w", TTL_MS).await?;
        for _ in 0..3 {
            let leader = cluster.leader().await?;
            cluster.nodes[leader].kill()?;
            lease = registry.renew_process_lease(&lease, TTL_MS).await?;
            registry
                .claim_process_lease("p", "other", TTL_MS)
                .await
                .expect_err("it is leased");
            cluster.nodes[leader].start()?;
            cluster.caught_up(leader).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_lives_through_the_death_of_its_node() -> Result<()> {
    const WAITERS: usize = 300;
    scenario(Options::new(NODE, 3), async |cluster| {
        let shared = registry(&cluster.endpoints(), "waits");
        for number in 0..WAITERS {
            let registered = shared.register_process(registration(&number.to_string()));
            registered.await?;
        }
        let waiters = (0..WAITERS).map(|number| {
            let registry = shared.clone();
            tokio::spawn(async move {
                let id = number.to_string();
                registry.wait_event_after(&id, "note", 0).await?;
                registry.await_process(&id).await
            })
        });
        let waiters: Vec<_> = waiters.collect();
        cluster.hurt().await?;
        let writer = registry(&cluster.endpoints(), "waits");
        for number in 0..WAITERS {
            let event = ProcessEventAppendRequest::new("note", json!(number));
            writer.append_event(&number.to_string(), event).await?;
        }
        cluster.hurt().await?;
        for number in 0..WAITERS {
            writer
                .complete_process(&number.to_string(), output())
                .await?;
        }
        let ends = tokio::time::timeout(Duration::from_secs(30), try_join_all(waiters));
        for end in ends.await.context("somebody still waits")?? {
            ensure!(end? == output());
        }
        Ok(())
    })
    .await
}
