//! Where the answer to a request of this node's callers goes.

use quorate_rpc::NodeError;
use tokio::sync::{mpsc, oneshot};

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

impl<T> Responder<T> {
    /// Delivers the answer; nobody may be waiting any more.
    pub fn send(self, outcome: Outcome<T>) {
        match self {
            Self::Call(tx) => drop(tx.send(outcome)),
            Self::Stream { id, tx } => drop(tx.send((id, outcome))),
        }
    }
}
