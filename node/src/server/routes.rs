//! All services on the port of clients: the one place where they are listed.

use std::sync::Arc;

use quorate_rpc::v1::cluster_server::ClusterServer;
use quorate_rpc::v1::coordination_server::CoordinationServer;
use quorate_rpc::v1::leases_server::LeasesServer;
use quorate_rpc::v1::locks_server::LocksServer;
use quorate_rpc::v1::processes_server::ProcessesServer;
use quorate_rpc::v1::queues_server::QueuesServer;
use quorate_rpc::v1::watch_server::WatchServer;
use quorate_rpc::{DESCRIPTORS, frame};
use tonic::server::NamedService;
use tonic::service::Routes;

use super::typed::Typed;
use super::{ClusterService, CoordinationService, health};
use crate::shared::Shared;

/// What health is told of, service by service; all stand or fall with the node.
pub const SERVICES: &[&str] = &[
    "",
    <CoordinationServer<CoordinationService> as NamedService>::NAME,
    <ClusterServer<ClusterService> as NamedService>::NAME,
    <LeasesServer<Typed> as NamedService>::NAME,
    <LocksServer<Typed> as NamedService>::NAME,
    <QueuesServer<Typed> as NamedService>::NAME,
    <ProcessesServer<Typed> as NamedService>::NAME,
    <WatchServer<Typed> as NamedService>::NAME,
];

/// A service that is asked with commands and answers with pages, as large as they are.
macro_rules! sized {
    ($server:ident, $service:expr) => {
        $server::new($service)
            .max_decoding_message_size(frame::REQUEST_BYTES_MAX)
            .max_encoding_message_size(frame::MESSAGE_BYTES_MAX)
    };
}

/// The services of clients and operators, with health and reflection.
pub fn clients(shared: &Arc<Shared>) -> Routes {
    let coordination = CoordinationService::new(Arc::clone(shared));
    let cluster = ClusterService::new(Arc::clone(shared));
    let typed = Typed::new(Arc::clone(shared));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let built = "the descriptors are those that the services were generated from";
    Routes::new(sized!(CoordinationServer, coordination))
        .add_service(ClusterServer::new(cluster))
        .add_service(sized!(LeasesServer, typed.clone()))
        .add_service(sized!(LocksServer, typed.clone()))
        .add_service(sized!(QueuesServer, typed.clone()))
        .add_service(sized!(ProcessesServer, typed.clone()))
        .add_service(WatchServer::new(typed))
        .add_service(health::service(shared))
        .add_service(reflection().build_v1().expect(built))
        .add_service(reflection().build_v1alpha().expect(built))
}
