//! Where the answer to a request of this node's callers goes.

use quorate_rpc::NodeError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::propose::too_late;

/// An answer, or why there is none.
pub type Outcome<T> = Result<T, NodeError>;

/// Where an answer goes.
pub enum Responder<T> {
    /// To one waiting call.
    Call(oneshot::Sender<Outcome<T>>),
    /// Into a stream of answers, under the request's id there.
    Stream {
        /// The request's id on the stream.
        id: u64,
        /// The stream's answers.
        tx: mpsc::UnboundedSender<(u64, Outcome<T>)>,
    },
}

/// Submits a request and waits for its answer until `deadline`; `lost` is what is said when the
/// node drops it.
pub async fn answer_of<T>(
    deadline: Instant,
    lost: fn() -> NodeError,
    submit: impl FnOnce(Responder<T>),
) -> Outcome<T> {
    let (tx, rx) = oneshot::channel();
    submit(Responder::Call(tx));
    match timeout_at(deadline, rx).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(lost()),
        Err(_) => Err(too_late()),
    }
}

/// A command may have been proposed before the node stopped.
pub fn command_lost() -> NodeError {
    NodeError::OutcomeUnknown {
        message: "the node stopped before there was an answer".to_owned(),
    }
}

impl<T> Responder<T> {
    /// Delivers the answer; nobody may be waiting any more.
    pub fn send(self, outcome: Outcome<T>) {
        match self {
            Self::Call(tx) => drop(tx.send(outcome)),
            Self::Stream { id, tx } => drop(tx.send((id, outcome))),
        }
    }
}
