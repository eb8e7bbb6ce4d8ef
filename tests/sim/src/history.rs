//! What clients asked for and what they were answered, and what the nodes were seen to be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use quorate_client::ClientError;
use quorate_node::simulation::Seen;
use quorate_statemachine::FencingToken;
use quorate_statemachine::queue::ItemId;

use crate::planted::Planted;

/// When, since the simulation began.
pub type At = Duration;

/// What became of a claim, as far as its caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: it must never be lost.
    Granted(FencingToken),
    /// Somebody else has it.
    Busy,
    /// It may have been done, or not.
    Unknown,
    /// It was certainly not done.
    NotDone,
}

impl Outcome {
    /// What an error says of a claim.
    #[must_use]
    pub fn of_error(error: &ClientError) -> Self {
        match error.may_have_happened() {
            true => Self::Unknown,
            false => Self::NotDone,
        }
    }
}

/// A claim of a lease.
#[allow(
    dead_code,
    reason = "what is violated is printed with all that is known"
)]
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Who asked.
    pub client: String,
    /// The key.
    pub key: String,
    /// How long the lease lives.
    pub ttl: Duration,
    /// Before it was sent for the first time.
    pub asked: At,
    /// From when the TTL counts for whoever holds it.
    pub sent: At,
    /// When the answer was there.
    pub answered: At,
    /// The answer.
    pub outcome: Outcome,
    /// When its holder began to give it back; never, if it did not.
    pub released: Option<At>,
}

impl Claimed {
    /// Until when its holder can be sure of it: the TTL from before it asked, on a clock that may
    /// be 5 % slower than cluster time (`quorate_node::clock`).
    #[must_use]
    pub fn entitled_until(&self) -> At {
        self.sent + self.ttl.mul_f64(1.0 / 1.05)
    }
}

/// A write to the resource that leases are about.
#[allow(
    dead_code,
    reason = "what is violated is printed with all that is known"
)]
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// When it came there.
    pub at: At,
    /// The token it carried.
    pub token: FencingToken,
    /// Whether the resource took it.
    pub taken: bool,
    /// Whether its sender could be sure of its lease.
    pub entitled: bool,
}

/// A look at a lease, by a read or by a claim that found it taken.
#[derive(Debug, Clone)]
pub struct Read {
    /// The key.
    pub key: String,
    /// Before it was sent.
    pub sent: At,
    /// When the answer was there.
    pub answered: At,
    /// The grant that was live.
    pub seen: Option<FencingToken>,
}

/// A push that was acknowledged.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The item.
    pub item: ItemId,
    /// What it carries.
    pub payload: String,
}

/// A claim of an item.
#[derive(Debug, Clone)]
pub struct ItemClaimed {
    /// The item.
    pub item: ItemId,
    /// The claim's token.
    pub token: FencingToken,
    /// Before it was sent.
    pub sent: At,
    /// When the answer was there.
    pub answered: At,
    /// Until when the worker can be sure of it.
    pub entitled_until: At,
    /// When it began to settle it.
    pub settling: Option<At>,
    /// When that was acknowledged.
    pub settled: Option<At>,
}

/// An event that was acknowledged.
#[derive(Debug, Clone)]
pub struct Appended {
    /// What it says; no two say the same.
    pub payload: String,
    /// Its number.
    pub sequence: u64,
    /// Before it was sent for the first time.
    pub sent: At,
    /// When the answer was there.
    pub answered: At,
}

/// An event that is stored in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub sequence: u64,
    /// What it says.
    pub payload: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct History {
    /// A bug that must be caught.
    pub planted: Option<Planted>,
    /// Claims, in the order of their answers.
    pub claims: Vec<Claimed>,
    /// What was seen of leases.
    pub reads: Vec<Read>,
    /// Items that were acknowledged.
    pub pushed: Vec<Pushed>,
    /// Claims of items.
    pub items: Vec<ItemClaimed>,
    /// Events that were acknowledged.
    pub appended: Vec<Appended>,
    /// Events that are there in the end.
    pub stored: Vec<Stored>,
    /// Holds of the lock that is waited for in line.
    pub handed_over: u64,
    /// Writes to the one resource, in order.
    pub writes: Vec<Write>,
    /// Greatest token that the resource has seen.
    pub highest: FencingToken,
    /// How many clusters were lost and followed by another one.
    pub cluster: u64,
    /// Digest by cluster and applied entry, with the node that was first seen there.
    pub digests: BTreeMap<(u64, u64), (usize, String)>,
    /// Leaders by cluster and term.
    pub leaders: BTreeMap<(u64, u64), usize>,
    /// What must not be.
    pub violations: Vec<String>,
    /// How the nodes were last seen.
    pub seen: BTreeMap<usize, Seen>,
}

/// Shared by all that runs in the one thread.
pub type Shared = Rc<RefCell<History>>;

impl History {
    /// A claim's place, for what comes later.
    pub fn claimed(&mut self, claim: Claimed) -> usize {
        self.claims.push(claim);
        self.claims.len() - 1
    }

    /// The resource takes a write unless it has seen a greater token.
    pub fn write(&mut self, at: At, token: FencingToken, entitled: bool) -> bool {
        let taken = token >= self.highest || self.planted == Some(Planted::NoFence);
        self.highest = self.highest.max(token);
        self.writes.push(Write {
            at,
            token,
            taken,
            entitled,
        });
        taken
    }

    /// Something that must not be.
    pub fn violated(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }
}
