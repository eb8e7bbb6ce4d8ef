//! The types that Raft runs on: the only home of openraft's generic names.
//!
//! Everything else in this crate says [`Entry`] or [`LogId`] and never spells out a parameter, so
//! that a new openraft changes this file, the storage and the network, and nothing else.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::Instant as _;
use quorate_rpc::Trace;
use quorate_statemachine::{Principal, Reply, Timestamp};

use crate::config::Config;
use crate::origin::{Caller, Origin};

openraft::declare_raft_types!(
    /// Raft as Quorate uses it: standard leaders (one a term), our own nodes, proposals and
    /// outcomes.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// The Raft of a node.
pub type Raft = openraft::Raft<TypeConfig, crate::storage::StateStore>;
/// What Raft says of itself.
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
/// Term and node of a leader or candidate.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
/// Term of a leader that a quorum has elected.
pub type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
/// Term and index of an entry.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// One entry of the log.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// A vote, given or won.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership and the entry that brought it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers and where it is.
pub type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, crate::storage::SnapshotData>;
/// First and last of the log.
pub type LogState = openraft::LogState<TypeConfig>;
/// The callback that says that an append is on disk.
pub type Flushed = openraft::storage::IOFlushed<TypeConfig>;

/// A log id from its term and index.
#[must_use]
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderId::new(term),
        index,
    }
}

/// A member of the cluster: who it is and where to find it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Its name, for people.
    pub name: String,
    /// Where other members reach it.
    pub peer_addr: String,
    /// Where clients reach it.
    pub client_addr: String,
    /// Where metrics and health are served.
    pub http_addr: String,
    /// What becomes of it once it has caught up; of a learner.
    pub goal: Goal,
}

impl Member {
    /// Whether the other is at the same addresses under the same name.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        let goal = self.goal;
        *self
            == Self {
                goal,
                ..other.clone()
            }
    }
}

/// What a learner is to become. It stands in the membership, so that every leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Goal {
    /// It stays as it is.
    #[default]
    Stay,
    /// A voter beside those there are.
    Vote,
    /// A voter in place of this one.
    Replace(u64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stay => Ok(()),
            Self::Vote => write!(f, "vote"),
            Self::Replace(old) => write!(f, "replace {old}"),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.peer_addr)
    }
}

/// Bytes in front of a proposal, in which the log writes the entry's header: so that the value in
/// the log, the bytes on the wire and the proposal are one allocation.
pub(crate) const HEADER_BYTES: usize = 18;

/// Where in the header the kind of the entry is.
const KIND_AT: usize = 1;

const TIME_BYTES: usize = 8;

/// Kind of an entry of the cluster's own, and of any that was written before entries had origins.
pub(crate) const KIND_COMMAND: u8 = 1;

/// Kind of an entry that says who asked for its command.
pub(crate) const KIND_COMMAND_OF: u8 = 3;

/// The [version](quorate_statemachine::version) of the cluster from which on entries of that kind
/// are written: builds of the first one do not know it.
pub(crate) const ORIGINS_SINCE: u32 = 2;

/// What a leader proposes: an encoded command, the cluster time at which it was proposed, and who
/// asked for it.
///
/// The payload is `[proposed_at_ms u64, little endian][origin][encoded statemachine::Command]`, see
/// [`Origin`]; there is no origin in a command of the cluster itself.
#[derive(Clone)]
pub struct Proposal {
    /// Header of the entry (its kind, and zeroes until the log has given the entry its place), then
    /// the payload.
    framed: Bytes,
    /// Where the command begins.
    command_at: usize,
}

impl Proposal {
    /// A proposal of an encoded command.
    #[must_use]
    pub fn new(proposed_at: Timestamp, origin: &Origin, command: &[u8]) -> Self {
        let (kind, origin_bytes) = match origin.caller {
            Caller::Cluster => (KIND_COMMAND, 0),
            Caller::Anonymous | Caller::Named(_) => (KIND_COMMAND_OF, origin.encoded_len()),
        };
        let command_at = HEADER_BYTES + TIME_BYTES + origin_bytes;
        let mut framed = BytesMut::with_capacity(command_at + command.len());
        framed.put_bytes(0, HEADER_BYTES);
        framed[KIND_AT] = kind;
        framed.put_u64_le(proposed_at.0);
        if kind == KIND_COMMAND_OF {
            origin.put(&mut framed);
        }
        framed.put_slice(command);
        Self {
            framed: framed.freeze(),
            command_at,
        }
    }

    /// A proposal inside an encoded entry; `None` if that does not hold one.
    pub(crate) fn from_framed(framed: Bytes) -> Option<Self> {
        let mut rest = framed.get(HEADER_BYTES + TIME_BYTES..)?;
        if framed[KIND_AT] == KIND_COMMAND_OF {
            Origin::take(&mut rest)?;
        }
        let command_at = framed.len() - rest.len();
        Some(Self { framed, command_at })
    }

    /// The header and the payload behind it.
    pub(crate) fn framed(&self) -> &Bytes {
        &self.framed
    }

    /// Kind of its entry.
    pub(crate) fn kind(&self) -> u8 {
        self.framed[KIND_AT]
    }

    /// The payload: time, origin and command.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.framed[HEADER_BYTES..]
    }

    /// Cluster time at which the leader proposed it.
    #[must_use]
    pub fn proposed_at(&self) -> Timestamp {
        let time = self.bytes().first_chunk::<TIME_BYTES>();
        Timestamp(u64::from_le_bytes(
            *time.expect("both constructors leave room for the time"),
        ))
    }

    /// Who asked for it, and in which trace.
    #[must_use]
    pub fn origin(&self) -> (Principal<'_>, Option<Trace>) {
        if self.kind() != KIND_COMMAND_OF {
            return (Principal::Cluster, None);
        }
        let mut bytes = &self.bytes()[TIME_BYTES..];
        Origin::take(&mut bytes).expect("both constructors have made sure of it")
    }

    /// The encoded command.
    #[must_use]
    pub fn command(&self) -> &[u8] {
        &self.framed[self.command_at..]
    }
}

impl PartialEq for Proposal {
    /// The place in the log is not the proposal's, so it does not count.
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.bytes() == other.bytes()
    }
}

impl Eq for Proposal {}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.proposed_at().0;
        write!(f, "command of {} bytes at {at}", self.command().len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({self})")
    }
}

/// What applying an entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Log index of the entry.
    pub index: u64,
    /// The answer to its command; `None` for entries of Raft itself, which carry no command.
    pub reply: Option<Reply>,
}

/// How long ago this leader heard a quorum; none if it never did. A leader that is a quorum by
/// itself hears it all the time.
pub fn since_quorum(metrics: &Metrics) -> Option<Duration> {
    if metrics.membership_config.membership().voter_ids().count() == 1 {
        return Some(Duration::ZERO);
    }
    metrics.last_quorum_acked.map(|at| at.elapsed())
}

impl Config {
    /// openraft's configuration.
    pub(crate) fn raft_config(&self, cluster_id: &str) -> openraft::Config {
        let raft = &self.raft;
        openraft::Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: raft.heartbeat_ms,
            election_timeout_min: raft.election_min_ms,
            election_timeout_max: raft.election_max_ms,
            // A node that was cut off and comes back must not disturb a working leader.
            enable_pre_vote: Some(true),
            // A leader that was killed may have sent entries that its own disk does not have:
            // openraft replicates while the local log is still being synced. If it went on in the
            // same term, it would give their log ids to other entries, and the logs would differ
            // for ever without anybody noticing. So it stands for election like everybody else.
            enable_leader_restore: Some(false),
            // A leader that a one-way partition has cut off falls silent so that others can vote
            // (the Jepsen partial-network case); twice the lower bound that openraft sets.
            quorum_loss_probe_interval: Some(4 * raft.election_max_ms),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(raft.snapshot_entries),
            max_in_snapshot_log_to_keep: raft.keep_entries,
            // A snapshot is sent only when the log behind it is gone.
            replication_lag_threshold: raft.snapshot_entries + raft.keep_entries,
            purge_batch_size: (raft.keep_entries / 4).max(1),
            max_payload_entries: 1_024,
            // Snapshots are streamed in chunks by our own network; this bounds the whole transfer.
            install_snapshot_timeout: ms(Duration::from_secs(600)),
            ..openraft::Config::default()
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_takes_the_defaults() {
        assert!(Config::default().raft_config("c").validate().is_ok());
    }

    #[test]
    fn a_proposal_keeps_time_origin_and_command() {
        let proposal = Proposal::new(Timestamp(0x0102), &Caller::Cluster.into(), b"command");
        assert_eq!(proposal.proposed_at(), Timestamp(0x0102));
        assert_eq!(proposal.origin(), (Principal::Cluster, None));
        assert_eq!(proposal.command(), b"command");
        assert_eq!(proposal.bytes(), b"\x02\x01\0\0\0\0\0\0command");
        assert_eq!(proposal.to_string(), "command of 7 bytes at 258");
        let origin = Caller::Named("ci".into()).into();
        let proposal = Proposal::new(Timestamp(3), &origin, b"command");
        assert_eq!(proposal.proposed_at(), Timestamp(3));
        assert_eq!(proposal.origin(), (Principal::Named("ci"), None));
        assert_eq!(proposal.command(), b"command");
        let again = Proposal::from_framed(proposal.framed().clone()).expect("just made");
        assert_eq!(again.command(), b"command");
        assert_eq!(again, proposal);
    }

    #[test]
    fn too_short_bytes_are_no_proposal() {
        assert!(Proposal::from_framed(Bytes::from_static(&[0; 25])).is_none());
        let empty = Proposal::from_framed(Bytes::from_static(&[0; 26])).expect("just enough");
        assert_eq!(empty.command(), b"");
        let proposal = Proposal::new(Timestamp(3), &Caller::Anonymous.into(), b"");
        let whole = proposal.framed();
        assert!(Proposal::from_framed(whole.slice(..27)).is_none());
        assert!(Proposal::from_framed(whole.clone()).is_some());
    }
}
