//! `grpc.health.v1`: what load balancers and clients of gRPC ask, by the answers of `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::{http, routes};
use crate::shared::Shared;

/// How often readiness is looked at; that the node stops or fails is known at once.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The service, and a task that keeps it current until the node has stopped.
pub fn service(shared: &Arc<Shared>) -> HealthServer<impl Health> {
    let reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    shared.spawn_until_stop(follow(Arc::clone(shared), reporter));
    HealthServer::new(service)
}

async fn follow(shared: Arc<Shared>, reporter: HealthReporter) {
    let mut health = shared.health();
    loop {
        health.mark_unchanged();
        let status = match http::ready(&shared).await {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for name in routes::SERVICES {
            reporter.set_service_status(name, status).await;
        }
        let changed = tokio::time::timeout(LOOK_EVERY, health.changed());
        if let Ok(Err(_)) = changed.await {
            return;
        }
    }
}
