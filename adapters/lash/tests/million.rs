//! A million finished processes beside those that run. Takes minutes:
//!
//! ```sh
//! cargo test --release -p quorate-lash --test million -- --ignored --nocapture
//! ```

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use lash_core::{
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessInput, ProcessProvenance,
    ProcessRegistration, ProcessRegistry,
};
use quorate_lash::QuorateProcesses;
use quorate_node::Node;
use serde_json::json;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LIVE: usize = 1_000;
const IN_FLIGHT: usize = 256;
const TIMES: usize = 200;

fn registration(id: String) -> ProcessRegistration {
    let input = ProcessInput::External {
        metadata: json!({}),
    };
    ProcessRegistration::new(id, input, ProcessProvenance::host())
}

async fn finish(registry: QuorateProcesses, from: usize, to: usize) -> Result {
    for number in (from..to).step_by(IN_FLIGHT) {
        let id = format!("done-{number}");
        registry.register_process(registration(id.clone())).await?;
        let output = ProcessAwaitOutput::Success {
            value: json!(number),
            control: None,
        };
        registry.complete_process(&id, output).await?;
    }
    Ok(())
}

/// Medians of a listing and of an append.
async fn times(registry: &QuorateProcesses, round: usize) -> Result<(Duration, Duration)> {
    let (mut lists, mut appends) = (Vec::new(), Vec::new());
    for number in 0..TIMES {
        let start = Instant::now();
        let live = registry.list_non_terminal().await?;
        lists.push(start.elapsed());
        assert_eq!(live.len(), LIVE);
        let event = ProcessEventAppendRequest::new("process.waiting", json!({}))
            .with_replay_key(format!("{round}-{number}"));
        let start = Instant::now();
        registry.append_event("live-7", event).await?;
        appends.push(start.elapsed());
    }
    lists.sort();
    appends.sort();
    Ok((lists[TIMES / 2], appends[TIMES / 2]))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_million_finished_processes_cost_a_recovery_nothing() -> Result {
    let dir = tempfile::tempdir()?;
    let node = Node::builder().data_dir(dir.path()).start().await?;
    let registry = QuorateProcesses::over(node.client()).build()?;
    for number in 0..LIVE {
        let registered = registry.register_process(registration(format!("live-{number}")));
        registered.await?;
    }
    let (mut round, mut finished) = (0, 0);
    for until in [0, 1_000, 100_000, 1_000_000] {
        let start = Instant::now();
        let tasks = (0..IN_FLIGHT).map(|task| {
            let registry = registry.clone();
            tokio::spawn(finish(registry, finished + task, until))
        });
        for task in try_join_all(tasks).await? {
            task?;
        }
        finished = until;
        let took = start.elapsed();
        let (list, append) = times(&registry, round).await?;
        round += 1;
        println!(
            "{finished} finished (in {took:.0?}), {LIVE} live: list_non_terminal {list:.2?}, \
             append_event {append:.2?}"
        );
    }
    node.shutdown().await;
    Ok(())
}
