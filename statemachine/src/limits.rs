//! Every bound of the state machine, in one place, with the arithmetic behind it.
//!
//! A bound is checked where a command enters ([`crate::Command::validate`]) so that what exceeds it
//! never reaches the log. Each refusal names the limit and the actual value.

/// Longest name: lease key, owner id, queue, process id, event type, idempotency key. In bytes.
pub const NAME_BYTES_MAX: usize = 512;

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
const _: () = assert!(CLAIM_BYTES_MAX + 2 * PAYLOAD_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX + 2 * PAYLOAD_BYTES_MAX < REPLY_BYTES_MAX);
const _: () = assert!(RENEWALS_PER_ENTRY_MAX * (NAME_BYTES_MAX * 3 + 256) < COMMAND_BYTES_MAX);
