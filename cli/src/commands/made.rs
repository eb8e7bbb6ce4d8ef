//! The first member of a new cluster, made by `snapshot restore` and `recover`.

use std::path::Path;

use quorate_node::disaster::{DisasterError, INDEX_MAX, Wanted};
use quorate_node::storage::Identity;
use quorate_statemachine::Name;
use serde::Serialize;

use crate::args::snapshot::FirstMember;
use crate::exit::{Exit, Failure};

/// What was made.
#[derive(Serialize)]
pub struct Made {
    data_dir: String,
    cluster_id: String,
    node_id: String,
    name: String,
    tokens_above: String,
    old_cluster_id: String,
}

impl Made {
    pub fn new(
        data_dir: &Path,
        identity: &Identity,
        tokens_above: u64,
        old_cluster_id: String,
    ) -> Self {
        Self {
            data_dir: data_dir.display().to_string(),
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id.to_string(),
            name: identity.name.clone(),
            tokens_above: tokens_above.to_string(),
            old_cluster_id,
        }
    }

    pub fn text(&self) -> String {
        format!(
            "{} is now node {} ({}) of the new cluster {}, its only voter\n\
             it has the state of cluster {}; every token from here on is greater than {}\n\
             start it: quorate serve --data-dir {}",
            self.data_dir,
            self.node_id,
            self.name,
            self.cluster_id,
            self.old_cluster_id,
            self.tokens_above,
            self.data_dir
        )
    }
}

/// Refuses a name that no node can have.
pub fn check(first: &FirstMember) -> Result<(), Failure> {
    match &first.name {
        Some(name) => Ok(Name::parse("name", name.clone()).map(drop)?),
        None => Ok(()),
    }
}

/// Why nothing was made.
pub fn refused(error: &DisasterError) -> Failure {
    let message = format!("{error}; nothing was made");
    let refused = |message| Failure::new(Exit::Lost, "unsafe", message);
    match error {
        DisasterError::ClockBehind { clock_ms, behind } => {
            refused(message).bounded(format!("not before {behind}"), format!("{clock_ms} ms"))
        }
        DisasterError::NoRoom { index, .. } => {
            refused(message).bounded(format!("below {INDEX_MAX}"), index.to_string())
        }
        DisasterError::Quorum { .. } => refused(message),
        DisasterError::LowFloor { floor, last } => {
            Failure::invalid(message).bounded(format!("above {last}"), floor.to_string())
        }
        DisasterError::OtherCluster { .. } | DisasterError::NoMember => Failure::invalid(message),
        _ => Failure::error("not_made", message),
    }
}

impl FirstMember {
    pub fn wanted(&self) -> Wanted {
        Wanted {
            data_dir: self.data_dir.clone(),
            node_id: self.node_id,
            name: self.name.clone(),
            tokens_above: self.tokens_above,
        }
    }
}
