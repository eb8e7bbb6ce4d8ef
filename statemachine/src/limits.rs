//! Every bound of the state machine, in one place, with the arithmetic behind it.
//!
//! A bound is checked where a command enters ([`crate::Command::validate`]) so that what exceeds it
//! never reaches the log. Each refusal names the limit and the actual value.

/// Longest name: lease key, owner id, queue, process id, event type, idempotency key. In bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// Longest name of a principal. In bytes: an entry keeps its length in one.
pub const PRINCIPAL_BYTES_MAX: usize = 128;

/// Users of the cluster. A change of rights looks at all of them in the worst case, and all are in
/// memory: 10,000 x about 300 bytes.
pub const USERS_MAX: u64 = 10_000;

/// Roles of the cluster.
pub const ROLES_MAX: u64 = 1_000;

/// Roles of one user. With [`ROLE_RULES_MAX`] that is 1,024 rules to try for each key.
pub const USER_ROLES_MAX: usize = 16;

/// Rules of one role.
pub const ROLE_RULES_MAX: usize = 64;

/// Tokens of one user: they go with it, in one entry.
pub const USER_TOKENS_MAX: usize = 64;

/// Longest life of a token that has an end: ten years. In milliseconds.
pub const TOKEN_TTL_MS_MAX: u64 = 3_653 * 24 * 60 * 60 * 1000;

/// Longest opaque lease token a caller may mint. In bytes. A UUID in text form has 36.
pub const LEASE_TOKEN_BYTES_MAX: usize = 128;

/// Liveness facts of an owner. In bytes.
pub const LIVENESS_BYTES_MAX: usize = 4 << 10;

/// Largest payload of an event, a queue item, a process record or a lease's metadata. In bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Largest encoded command, a composite with all its steps included. In bytes.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// Largest encoded reply or row the codec will decode. A page of rows is cut by bytes long before.
pub const REPLY_BYTES_MAX: usize = 16 << 20;

/// Longest time to live of a lease or claim: one day. In milliseconds.
pub const TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Longest delay of a queue item: 30 days. In milliseconds.
pub const DELAY_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// Steps in one composite command. Item ids keep 10 bits for the step, see
/// [`crate::queue::ItemId`].
pub const COMPOSITE_STEPS_MAX: usize = 1 << 10;

/// Preconditions on one command.
pub const PRECONDITIONS_MAX: usize = 64;

/// Renewals the leader gathers into one entry: 1,024 x about 120 bytes is far below one command.
pub const RENEWALS_PER_ENTRY_MAX: usize = 1_024;

/// Items one claim may ask for.
pub const CLAIM_ITEMS_MAX: u32 = 256;

/// Payload bytes one claim may return; the claim stops before the item that would exceed it, but
/// always returns at least one. Keeps a reply far below [`REPLY_BYTES_MAX`].
pub const CLAIM_BYTES_MAX: usize = 2 << 20;

/// Leases that are live or not yet swept: each costs a node about 1 KB of memory.
pub const LEASES_MAX: u64 = 10_000_000;

/// Queues: each has a row in memory. One that was empty for an hour is forgotten.
pub const QUEUES_MAX: u64 = 100_000;

/// Process records, ended ones included.
pub const PROCESSES_MAX: u64 = 10_000_000;

/// Events of one process.
pub const PROCESS_EVENTS_MAX: u64 = 10_000_000;

/// Items waiting, delayed, claimed or dead in one queue.
pub const QUEUE_ITEMS_MAX: u64 = 10_000_000;

/// Dedupe keys one queue remembers: 27,000 pushes a second for [`DEDUPE_RETENTION_MS`].
pub const DEDUPE_KEYS_MAX: u64 = 100_000_000;

/// What is noted at a process beside its events, each: external reference, wait, wake target,
/// descriptor of a grant. In bytes.
pub const PROCESS_NOTE_BYTES_MAX: usize = 16 << 10;

/// Grants of all scopes of one session: detaching it deletes them in one entry.
pub const SESSION_GRANTS_MAX: u64 = 10_000;

/// Processes whose events wake one session: detaching it changes them in one entry.
pub const SESSION_WAKE_TARGETS_MAX: u64 = 10_000;

/// Grants that one command moves.
pub const GRANTS_MOVED_MAX: usize = 1_024;

/// Longest name of a session and of a lane of one: both and a number make the name of the lane's
/// execution lease. In bytes.
pub const SESSION_NAME_BYTES_MAX: usize = 240;

/// Sessions of the cluster.
pub const SESSIONS_MAX: u64 = 10_000_000;

/// What is stored in the row itself; more is stored as blobs, which only those who read it move. In
/// bytes.
pub const CONTENT_INLINE_BYTES_MAX: usize = 64 << 10;

/// Blobs of one content: 64 MiB.
pub const CONTENT_BLOBS_MAX: usize = 64;

/// Blobs that one command puts.
pub const BLOBS_PER_COMMAND_MAX: usize = 64;

/// Blobs that the state of a session refers to beside its own content.
pub const SESSION_ROOTS_MAX: usize = 256;

/// Blobs of one session: 1 TiB of the largest ones.
pub const SESSION_BLOBS_MAX: u64 = 1_000_000;

/// How long a blob that nothing refers to is kept: whoever put it has so long to commit. One hour.
pub const BLOB_RETENTION_MS: u64 = 60 * 60 * 1000;

/// How long a graph may be staged before it is committed: one hour. In milliseconds.
pub const STAGED_GRAPH_RETENTION_MS: u64 = 60 * 60 * 1000;

/// Nodes that one command adds to a graph: three rows each.
pub const NODES_PER_COMMAND_MAX: usize = 4_096;

/// Nodes of one graph, tombstones included.
pub const GRAPH_NODES_MAX: u64 = 10_000_000;

/// Usage counters that one commit moves, and those of one session.
pub const USAGE_COUNTERS_MAX: usize = 1_024;

/// Numbers in one usage counter.
pub const USAGE_NUMBERS_MAX: usize = 16;

/// Claims that one commit settles.
pub const SETTLEMENTS_MAX: usize = 64;

/// Pieces of work or inputs that one command claims, settles or cancels, and attachments that it
/// commits.
pub const SESSION_BATCH_MAX: usize = 1_024;

/// Content that one answer about work or inputs may hold. In bytes: far below
/// [`REPLY_BYTES_MAX`].
pub const SESSION_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Queued work of one session.
pub const SESSION_WORK_MAX: u64 = 100_000;

/// Claimed work that a claim passes by before it gives up.
pub const CLAIMED_WORK_PASSED_MAX: usize = 4_096;

/// Inputs of one session that are neither completed nor cancelled: a claim and an interrupt look at
/// all of them.
pub const SESSION_INPUTS_MAX: u64 = 4_096;

/// Completed and cancelled inputs that a session keeps until it is vacuumed.
pub const SESSION_ENDED_INPUTS_MAX: u64 = 1_000_000;

/// Attachments of one session.
pub const SESSION_ATTACHMENTS_MAX: u64 = 1_000_000;

/// What a URI of an attachment and the canonical bytes of an ingress may have. In bytes.
pub const SESSION_TEXT_BYTES_MAX: usize = 4 << 10;

/// Rows that one step of a removal deletes: a vacuum, a collection, the sweep of what is deleted.
pub const REMOVALS_MAX: usize = 256;

/// Bytes after which such a step ends early.
pub const REMOVAL_BYTES_MAX: usize = 1 << 20;

/// What a worker may say about a retry or a death. In bytes.
pub const NOTE_BYTES_MAX: usize = 1 << 10;

/// Holders and waiters of all locks: each costs a node about 1 KB of memory, as a lease does.
pub const LOCK_MEMBERS_MAX: u64 = 10_000_000;

/// Waiters of one lock: at 5 ms a hold the last of them waits for 50 s.
pub const LOCK_WAITERS_MAX: u64 = 10_000;

/// Holders of one lock at a time: permits of a semaphore, or those who share.
pub const LOCK_HOLDERS_MAX: u32 = 10_000;

/// Acquisitions that one hold may have, the first included.
pub const LOCK_REENTRIES_MAX: usize = 256;

/// Holders that an answer shows; the row says how many there are.
pub const LOCK_HOLDERS_SHOWN: usize = 16;

/// The note on a hold or a wait. In bytes: a lock's 10,000 waiters have 40 MB of them at most.
pub const LOCK_METADATA_BYTES_MAX: usize = 4 << 10;

/// Longest wait for a lock that has a limit: 30 days. In milliseconds.
pub const WAIT_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// Longest lock-delay after a holder died: five minutes. In milliseconds.
pub const LOCK_DELAY_MS_MAX: u64 = 5 * 60 * 1000;

/// Waiters whose time is over that one hand-over passes by; the rest are left to the next entry.
/// With a sweep of [`SWEEP_MAX`] that is 256 in the worst entry.
pub const MEMBERS_ENDED_MAX: usize = 8;

/// Holds that one revocation ends.
pub const MEMBERS_REVOKED_MAX: usize = 256;

/// Members that one search for a deadlock looks at.
pub const DEADLOCK_LOOKS_MAX: usize = 256;

/// Longest circle of waits that is found, so that its names stay far below [`REPLY_BYTES_MAX`].
pub const DEADLOCK_CYCLE_MAX: usize = 32;

/// Rows one page of a listing may hold.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// Bytes after which a page of a listing ends early.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

/// Due rows one entry may end. 32 rows cost about as much as two commands, so that a mass expiry
/// slows writers by a constant factor and never stalls them; a `Tick` may end [`TICK_SWEEP_MAX`].
pub const SWEEP_MAX: usize = 32;

/// Due rows one `Tick` may end: the leader proposes ticks back to back while something is due.
pub const TICK_SWEEP_MAX: usize = 512;

/// Blobs and steps of removals among them, a megabyte each.
pub const SWEEP_REMOVALS_MAX: usize = 8;

/// Ended grants kept for each lease key.
pub const LEASE_HISTORY_MAX: usize = 16;

/// How long the history of a key is kept after its last grant ended: one hour. In milliseconds.
pub const LEASE_HISTORY_RETENTION_MS: u64 = 60 * 60 * 1000;

/// How long a dedupe key is remembered after its item was settled or cancelled: one hour.
pub const DEDUPE_RETENTION_MS: u64 = 60 * 60 * 1000;

/// How long a queue's row (its counters) outlives the last change to an empty queue: one hour.
pub const QUEUE_IDLE_RETENTION_MS: u64 = 60 * 60 * 1000;

/// How long an answered request is remembered: ten minutes of cluster time. In milliseconds.
pub const REQUEST_RETENTION_MS: u64 = 10 * 60 * 1000;

/// Answered requests remembered at most; the oldest go first.
pub const REQUESTS_MAX: u64 = 500_000;

/// Bytes of remembered answers at most; the oldest go first.
pub const REQUEST_BYTES_MAX: u64 = 128 << 20;

/// How much longer than it must an answer may be remembered, so that many are dropped at once.
pub const REQUEST_SLACK_MS: u64 = 1_000;

/// Answers that one entry may drop. In the long run an entry adds two at most, its own and the end
/// of the one lock member that it makes, so that the table shrinks.
pub const REQUEST_EVICTIONS_MAX: usize = 64;

// "claim by <owner> expired" is a note too.
const _: () = assert!(NAME_BYTES_MAX + 64 <= NOTE_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < COMMAND_BYTES_MAX);
// The two names, two slashes and the 20 digits of a number.
const _: () = assert!(2 * SESSION_NAME_BYTES_MAX + 22 <= NAME_BYTES_MAX);
const _: () =
    assert!(SESSION_ANSWER_BYTES_MAX + SESSION_BATCH_MAX * 2 * NAME_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(CLAIM_BYTES_MAX + 2 * PAYLOAD_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX + 2 * PAYLOAD_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(RENEWALS_PER_ENTRY_MAX * (NAME_BYTES_MAX * 3 + 256) < COMMAND_BYTES_MAX);
