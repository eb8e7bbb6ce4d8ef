//! Who speaks to whom: metadata on every call between nodes, and optionally on calls of clients.
//!
//! A receiver that is not the addressed node of the addressed cluster refuses before it looks at
//! the message: an address that was given to another machine must not let two clusters mix.

use tonic::metadata::{MetadataMap, MetadataValue};

use crate::status::NodeError;

/// Metadata key of the cluster id.
pub const CLUSTER: &str = "quorate-cluster";
/// Metadata key of the sending node's id.
pub const FROM: &str = "quorate-from";
/// Metadata key of the addressed node's id.
pub const TO: &str = "quorate-to";

/// The parties of a call between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// The cluster that the sender belongs to.
    pub cluster_id: String,
    /// The sender.
    pub from: u64,
    /// The addressed node.
    pub to: u64,
}

impl Parties {
    /// Writes the parties into a call's metadata.
    pub fn write(&self, metadata: &mut MetadataMap) {
        if let Ok(cluster) = MetadataValue::try_from(self.cluster_id.as_str()) {
            metadata.insert(CLUSTER, cluster);
        }
        metadata.insert(FROM, MetadataValue::from(self.from));
        metadata.insert(TO, MetadataValue::from(self.to));
    }

    /// Reads them from a call's metadata and checks that the receiver is meant.
    pub fn check(
        metadata: &MetadataMap,
        cluster_id: &str,
        node_id: u64,
    ) -> Result<Self, NodeError> {
        let parties = Self {
            cluster_id: text(metadata, CLUSTER)?.to_owned(),
            from: number(metadata, FROM)?,
            to: number(metadata, TO)?,
        };
        if parties.cluster_id != cluster_id {
            return Err(NodeError::WrongCluster {
                expected: format!("cluster {}", parties.cluster_id),
                actual: format!("cluster {cluster_id}"),
            });
        }
        if parties.to != node_id {
            return Err(NodeError::WrongCluster {
                expected: format!("node {}", parties.to),
                actual: format!("node {node_id}"),
            });
        }
        Ok(parties)
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Result<&'a str, NodeError> {
    let value = metadata.get(key).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| {
        NodeError::Invalid(quorate_statemachine::InvalidArgument::new(
            key,
            "is missing from the call's metadata",
            "a call between nodes of one cluster",
            "none",
        ))
    })
}

fn number(metadata: &MetadataMap, key: &str) -> Result<u64, NodeError> {
    let value = text(metadata, key)?;
    value.parse().map_err(|_| {
        NodeError::Invalid(quorate_statemachine::InvalidArgument::new(
            key,
            "is no node id",
            "a decimal number",
            value,
        ))
    })
}
