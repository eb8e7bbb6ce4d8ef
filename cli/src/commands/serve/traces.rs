//! Sends the node's spans to a collector, over OTLP (gRPC).

use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use quorate_node::Config;

use crate::exit::Failure;

/// How long the last spans may take when the node has stopped.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// What sends spans; nothing if no collector is configured.
pub struct Traces(Option<SdkTracerProvider>);

/// Starts to send spans in the background. Must be called on the runtime of the node. A collector
/// that does not answer costs spans and a line in the log, and holds up nothing.
pub fn start(config: &Config) -> Result<Traces, Failure> {
    let endpoint = &config.trace.otlp;
    if endpoint.is_empty() {
        return Ok(Traces(None));
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| Failure::error("trace", format!("trace.otlp {endpoint:?}: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // Whoever begins a trace decides, and no variable of the environment here.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource(config))
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Traces(Some(provider)))
}

/// Who sends them: by its name, or by its address while it has none of its own.
fn resource(config: &Config) -> Resource {
    let listen = &config.listen;
    let names = [&config.node.name, &listen.advertise_client, &listen.client];
    let instance = names.into_iter().find(|name| !name.is_empty());
    let instance = instance.map_or("", String::as_str);
    Resource::builder()
        .with_service_name("quorate")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build()
}

impl Traces {
    /// Sends what has not been sent yet. Blocks, while the runtime still runs.
    pub fn end(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
