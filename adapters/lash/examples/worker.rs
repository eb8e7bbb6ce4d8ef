//! A worker that takes unfinished processes, does them, and may die at any point: another one goes
//! on. Start it on several machines:
//!
//! ```sh
//! quorate dev &
//! cargo run -p quorate-lash --example worker -- 127.0.0.1:7400
//! ```

use std::process::exit;
use std::time::Duration;

use lash_core::{
    PluginError, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessInput,
    ProcessLeaseCompletion, ProcessProvenance, ProcessRegistration, ProcessRegistry,
};
use quorate_lash::QuorateProcesses;
use serde_json::json;

/// A worker that is silent for so long has died.
const LEASE_TTL_MS: u64 = 30_000;

/// Registers a process once, however often it is called.
pub async fn submit(registry: &dyn ProcessRegistry, id: &str) -> Result<(), PluginError> {
    let input = ProcessInput::External {
        metadata: json!({ "label": "count to three" }),
    };
    let step = ProcessEventType {
        name: "step".to_owned(),
        payload_schema: lash_core::LashSchema::any(),
        semantics: Default::default(),
    };
    let registration = ProcessRegistration::new(id, input, ProcessProvenance::host());
    let registration = registration.with_extra_event_types([step]);
    registry.register_process(registration).await.map(drop)
}

/// Does every process that is not finished and that nobody else works on. How many it finished.
pub async fn work(registry: &QuorateProcesses, worker: &str) -> Result<usize, PluginError> {
    let mut finished = 0;
    for process in registry.list_non_terminal().await? {
        let lease = registry
            .claim_process_lease(&process.id, worker, LEASE_TTL_MS)
            .await;
        let Ok(lease) = lease else {
            continue;
        };
        // Whatever this worker writes from here on is refused once its lease is over.
        let fenced = registry.fenced_by(&lease)?;
        for step in 1..=3 {
            fenced.renew_process_lease(&lease, LEASE_TTL_MS).await?;
            // The key makes a step that a dead worker had done already a step done once.
            let event = ProcessEventAppendRequest::new("step", json!({ "number": step }))
                .with_replay_key(format!("step-{step}"));
            fenced.append_event(&process.id, event).await?;
        }
        let output = ProcessAwaitOutput::Success {
            value: json!(3),
            control: None,
        };
        fenced.complete_process(&process.id, output).await?;
        let done = ProcessLeaseCompletion::from_lease(&lease);
        fenced.complete_process_lease(&done).await?;
        finished += 1;
    }
    Ok(finished)
}

async fn run(endpoint: String) -> Result<(), Box<dyn std::error::Error>> {
    let registry = QuorateProcesses::connect([endpoint])
        .timeout(Duration::from_secs(10))
        .build()?;
    submit(&registry, "count").await?;
    let finished = work(&registry, "worker-1").await?;
    println!("finished {finished} processes");
    let output = registry.await_process("count").await?;
    println!("count ended with {output:?}");
    for event in registry.events_after("count", 0).await? {
        println!("{} {} {}", event.sequence, event.event_type, event.payload);
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let endpoint = std::env::args().nth(1);
    let endpoint = endpoint.unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    if let Err(error) = run(endpoint).await {
        eprintln!("worker: {error}");
        exit(1);
    }
}
