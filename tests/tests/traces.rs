//! What a collector is told of a traced request: spans of every node that took part, from the log.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use quorate_client::Trace;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::program::{printed, quorate};
use quorate_tests::wait::{PATIENCE, until};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

const CALLER: Trace = Trace {
    trace_id: *b"a trace's own id",
    span_id: *b"its span",
};

/// A span as it came, with the node that sent it.
#[derive(Debug, Clone)]
struct Seen {
    node: String,
    name: String,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
    parent: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Seen {
    fn attribute(&self, key: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// A collector that keeps what it is told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = self.0.lock().expect("nothing panics while it holds it");
        for resource in request.into_inner().resource_spans {
            let of = attributes(resource.resource.unwrap_or_default().attributes);
            let node = of.iter().find(|(key, _)| key == "service.instance.id");
            let node = node.map_or(String::new(), |(_, node)| node.clone());
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| Seen {
                node: node.clone(),
                name: span.name,
                trace_id: span.trace_id,
                span_id: span.span_id,
                parent: span.parent_span_id,
                attributes: attributes(span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    };
    let pairs = pairs.into_iter();
    pairs.map(|pair| (pair.key, text(pair.value))).collect()
}

impl Collector {
    /// Serves until the test ends; answers where.
    async fn start(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(format!("http://{address}"))
    }

    fn of(&self, trace: Trace, name: &str) -> Vec<Seen> {
        let seen = self.0.lock().expect("nothing panics while it holds it");
        let wanted = |span: &&Seen| span.trace_id == trace.trace_id && span.name == name;
        seen.iter().filter(wanted).cloned().collect()
    }

    fn knows_no_other_trace(&self) -> Result<()> {
        let seen = self.0.lock().expect("nothing panics while it holds it");
        let other = seen.iter().find(|span| span.trace_id != CALLER.trace_id);
        ensure!(other.is_none(), "nobody asked for {other:?}");
        Ok(())
    }

    /// The one span of a name, once it is there.
    async fn the(&self, trace: Trace, name: &str) -> Result<Seen> {
        let spans = until(name, PATIENCE, async || {
            let spans = self.of(trace, name);
            Ok((!spans.is_empty()).then_some(spans))
        });
        let spans = spans.await?;
        ensure!(
            spans.len() == 1,
            "{name} is there more than once: {spans:?}"
        );
        Ok(spans[0].clone())
    }
}

/// `quorate serve` as the cluster starts its nodes, with this collector.
fn program(dir: &Path, collector: &str) -> Result<PathBuf> {
    let path = dir.join("serve");
    let script = format!(
        "#!/bin/sh\nexport QUORATE_TRACE__OTLP={collector} OTEL_BSP_SCHEDULE_DELAY=50\n\
         exec {} serve --exit-with-parent --config \"$1\"\n",
        quorate(NODE).display()
    );
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_seen_at_every_node_below_its_callers_span() -> Result<()> {
    let collector = Collector::default();
    let dir = tempfile::tempdir()?;
    let program = program(dir.path(), &collector.start().await?)?;
    let options = Options {
        binary: program,
        ..Options::new(NODE, 3)
    };
    scenario(options, async |cluster| {
        let client = cluster.client()?;
        let untraced = client.lease("untraced").owner("me").claim()?;
        client.execute(untraced).await?;
        let traced = client.clone().traced(CALLER);
        traced
            .execute(client.lease("traced").owner("me").claim()?)
            .await?;

        let asked = collector
            .the(CALLER, "quorate.v1.Coordination/Execute")
            .await?;
        ensure!(asked.parent == CALLER.span_id, "{asked:?}");
        ensure!(
            asked.attribute("rpc.method") == Some("Execute"),
            "{asked:?}"
        );
        let proposed = collector.the(CALLER, "propose").await?;
        ensure!(proposed.parent == asked.span_id, "{proposed:?}");
        let claim = Some("lease.claim");
        ensure!(
            proposed.attribute("quorate.command") == claim,
            "{proposed:?}"
        );
        let applied = until(
            "all nodes to say that they applied it",
            PATIENCE,
            async || {
                let applied = collector.of(CALLER, "apply");
                Ok((applied.len() >= 3).then_some(applied))
            },
        );
        let applied = applied.await?;
        let nodes: BTreeSet<&str> = applied.iter().map(|span| &*span.node).collect();
        ensure!(nodes == BTreeSet::from(["n1", "n2", "n3"]), "{applied:?}");
        let index = asked
            .attribute("quorate.log_index")
            .context("it was committed")?;
        for span in &applied {
            ensure!(span.parent == asked.span_id, "{span:?}");
            ensure!(span.attribute("quorate.command") == claim, "{span:?}");
            ensure!(
                span.attribute("quorate.log_index") == Some(index),
                "{span:?}"
            );
        }
        collector.knows_no_other_trace()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_passes_its_callers_trace_on() -> Result<()> {
    let collector = Collector::default();
    let dir = tempfile::tempdir()?;
    let program = program(dir.path(), &collector.start().await?)?;
    let options = Options {
        binary: program,
        ..Options::new(NODE, 1)
    };
    scenario(options, async |cluster| {
        let mut list = tokio::process::Command::new(quorate(NODE));
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|it| format!("{it:02x}"))
                .collect::<String>()
        };
        let parent = format!("00-{}-{}-01", hex(&CALLER.trace_id), hex(&CALLER.span_id));
        list.args(["lease", "list"])
            .env("QUORATE_ENDPOINTS", cluster.endpoints().join(","))
            .env("TRACEPARENT", parent);
        printed(&list.output().await?)?;
        let read = collector
            .the(CALLER, "quorate.v1.Coordination/Read")
            .await?;
        ensure!(read.parent == CALLER.span_id, "{read:?}");
        collector.knows_no_other_trace()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nothing_up() -> Result<()> {
    // It takes connections, and never says a word.
    let deaf = TcpListener::bind("127.0.0.1:0").await?;
    let dir = tempfile::tempdir()?;
    let program = program(dir.path(), &format!("http://{}", deaf.local_addr()?))?;
    let options = Options {
        binary: program,
        ..Options::new(NODE, 1)
    };
    scenario(options, async |cluster| {
        let client = cluster.client()?.with_timeout(PATIENCE);
        let traced = client.clone().traced(CALLER);
        // More spans than wait for the collector: three each.
        for number in 0..1_000 {
            let lease = client.lease(format!("k{number}"));
            traced.execute(lease.owner("me").claim()?).await?;
        }
        cluster.nodes[0].terminate().await
    })
    .await
}
