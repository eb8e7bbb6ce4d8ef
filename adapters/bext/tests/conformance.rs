//! The suite on one embedded node, and on three nodes whose leader is killed in the middle.

mod support;

use std::sync::Arc;

use bext_plugin_api::locking::{LockHandle, LockingPlugin};
use quorate_bext::conformance::Conformance;
use quorate_bext::{LockId, QuorateLocks};
use support::Cluster;

fn token(handle: &LockHandle) -> Option<u64> {
    LockId::of(handle).ok().map(|lock_id| lock_id.fencing_token)
}

#[test]
fn one_embedded_node_conforms() {
    let cluster = Cluster::embedded();
    let client = cluster.client();
    let make = move || -> Arc<dyn LockingPlugin> {
        let locks = QuorateLocks::over(client.clone()).build();
        Arc::new(locks.expect("the options are right"))
    };
    Conformance::new(make).fencing_token(token).run();
}

#[test]
fn three_nodes_conform_while_their_leader_is_killed() {
    let cluster = Arc::new(Cluster::of_three());
    let endpoints = cluster.endpoints();
    let make = move || -> Arc<dyn LockingPlugin> {
        let locks = QuorateLocks::connect(endpoints.clone())
            .prefix("bext/")
            .build();
        Arc::new(locks.expect("the options are right"))
    };
    let hurt = {
        let cluster = Arc::clone(&cluster);
        move || cluster.kill_leader()
    };
    Conformance::new(make)
        .fencing_token(token)
        .disturbance(hurt)
        .run();
}
