//! Bugs that are planted, so that it is known that they are caught (`tests/planted.rs`).
//!
//! Most are not in the product: a disk, a resource or a client behaves as if one were. Those of
//! nodes are `quorate_node::simulation::Bug`, which only a build for simulations has.

use quorate_node::simulation::Bug;

/// Which bug is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Disks say yes to a sync and do nothing, as a node that answers before it has synced.
    AckBeforeSync,
    /// The resource takes every write, whatever its token.
    NoFence,
    /// Clients believe in a lease for twice its TTL.
    LateDeadline,
    /// A lease's key is asked for under the name of another one in the end, as if it were lost.
    LostKey,
    /// A restored log goes on where its snapshot ends.
    TokenReuse,
    /// A client that gives up to wait forgets to say so.
    LostCancel,
    /// Clients read what any node has.
    StaleRead,
    /// A push that may have been done is taken for done.
    AckUnknown,
    /// A worker takes a refused settlement for done.
    SettleBelieved,
    /// An event that may have been appended is appended again without a key.
    UnkeyedRetry,
    /// Cluster time is the wall clock of whoever leads.
    LocalClock,
    /// What an entry does depends on the order of a hash map.
    HashOrder,
    /// What was applied does not hold time back: a leader whose clock is behind turns it back.
    Unclamped,
    /// Reads look at the state at the time of the leader's clock, ahead of entries on their way.
    ReadsByClock,
}

impl Planted {
    /// By its name on the command line.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "ack-before-sync" => Some(Self::AckBeforeSync),
            "no-fence" => Some(Self::NoFence),
            "late-deadline" => Some(Self::LateDeadline),
            "lost-key" => Some(Self::LostKey),
            "token-reuse" => Some(Self::TokenReuse),
            "lost-cancel" => Some(Self::LostCancel),
            "stale-read" => Some(Self::StaleRead),
            "ack-unknown" => Some(Self::AckUnknown),
            "settle-believed" => Some(Self::SettleBelieved),
            "unkeyed-retry" => Some(Self::UnkeyedRetry),
            "local-clock" => Some(Self::LocalClock),
            "hash-order" => Some(Self::HashOrder),
            "unclamped" => Some(Self::Unclamped),
            "reads-by-clock" => Some(Self::ReadsByClock),
            _ => None,
        }
    }

    /// The bug of nodes that it is, if it is one.
    #[must_use]
    pub fn of_nodes(self) -> Option<Bug> {
        match self {
            Self::LocalClock => Some(Bug::LocalClock),
            Self::HashOrder => Some(Bug::HashOrder),
            Self::Unclamped => Some(Bug::Unclamped),
            Self::ReadsByClock => Some(Bug::ReadsByClock),
            Self::TokenReuse => Some(Bug::TokenReuse),
            _ => None,
        }
    }
}
