//! What this node serves to clients and operators.

mod activity;
pub mod caller;
mod cluster;
mod connection;
mod console;
mod coordination;
mod edge;
mod exchange;
mod health;
mod http;
mod listen;
mod routes;
mod save;
mod typed;
mod unfinished;

use quorate_client::{Consistency, Executed};
use quorate_rpc::{NodeError, v1};
use tokio::time::Instant;

use cluster::ClusterService;
pub use cluster::status_of;
pub use connection::Patience;
use coordination::CoordinationService;
pub use edge::{Edge, connections_within, refused};
pub use http::router as http_router;
pub use listen::{Bound, Connections, ListenError, bind, server};
pub use routes::clients as client_routes;
pub use save::SAVES_MAX;

use crate::core::Core;
use crate::origin::Origin;

/// The node has stopped for good.
pub fn fatal(error: &impl std::fmt::Display) -> NodeError {
    NodeError::Stopped {
        message: error.to_string(),
    }
}

/// When the caller of a request with this timeout stops waiting.
pub fn deadline(timeout_ms: u32) -> Instant {
    let limit = quorate_rpc::frame::TIMEOUT_MS_MAX;
    let ms = if timeout_ms == 0 {
        limit
    } else {
        timeout_ms.min(limit)
    };
    Instant::now() + std::time::Duration::from_millis(ms.into())
}

/// How a read is asked to be answered; a lag of 0 ms is no bound.
fn consistency(asked: v1::Consistency, max_lag_ms: u32) -> Consistency {
    match asked {
        v1::Consistency::Linearizable => Consistency::Linearizable,
        v1::Consistency::Lease => Consistency::Lease,
        v1::Consistency::Stale => Consistency::Stale {
            max_lag_ms: (max_lag_ms != 0).then_some(max_lag_ms.into()),
        },
    }
}

/// The reply to one command.
pub fn execute_reply(id: u64, outcome: Result<Executed, NodeError>) -> v1::ExecuteReply {
    let (index, result) = match outcome {
        Ok(Executed { index, reply }) => (
            index,
            v1::execute_reply::Result::Reply(reply.encode().into()),
        ),
        Err(error) => (0, v1::execute_reply::Result::Error(error.into())),
    };
    v1::ExecuteReply {
        id,
        index,
        result: Some(result),
    }
}

/// Executes a command that another node passed on: here or not at all.
pub async fn execute_once(core: &Core, request: v1::ForwardRequest) -> v1::ExecuteReply {
    let origin = Origin::from_wire(request.origin.unwrap_or_default());
    let deadline = deadline(request.timeout_ms);
    let outcome = core
        .proposer()
        .execute(request.command, origin, deadline, request.allow_zero_ttl)
        .await;
    execute_reply(0, outcome)
}
