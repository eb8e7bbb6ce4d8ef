//! Members, answers and lists for the tests of `top`.

use quorate_client::admin::{Load, Member, NodeStatus};
use quorate_client::{ClientError, NodeError};

use super::listing::{Entry, Listing};

/// Member `n<id>`, a voter.
pub fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        voter: true,
        ..Member::default()
    }
}

/// What it says; the first member leads.
pub fn status(id: u64, applied: u64) -> NodeStatus {
    NodeStatus {
        cluster_id: "c1".to_owned(),
        id,
        role: if id == 1 { "leader" } else { "follower" }.to_owned(),
        term: 3,
        committed: applied,
        applied,
        digest: "0123456789abcdef0123456789abcdef".to_owned(),
        healthy: true,
        uptime_ms: 61_000,
        leases: 7,
        cluster_version: 2,
        load: Some(Load {
            sessions: 2,
            watches: 4,
            commands_in_flight: 5,
            disk_free_bytes: 30,
            disk_size_bytes: 90,
            ..Load::default()
        }),
        ..NodeStatus::default()
    }
}

/// Why nobody answers.
pub fn gone() -> ClientError {
    let gone = NodeError::Unavailable {
        message: "refused".to_owned(),
        retry_after_ms: 0,
        leader: None,
    };
    gone.into()
}

/// A list of leases of these keys.
pub fn leases(keys: &[&str]) -> Listing {
    let entry = |key: &&str| Entry {
        name: (*key).to_owned(),
        cells: vec![(*key).to_owned(), "me".to_owned(), "41".to_owned()],
    };
    Listing {
        header: &["KEY", "OWNER", "TOKEN"],
        entries: keys.iter().map(entry).collect(),
        more: false,
        confirmed: true,
    }
}
