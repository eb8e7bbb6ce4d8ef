//! lash-core's `ProcessRegistry` and session stores on a Quorate cluster.
//!
//! Of lash-core 0.1.0-alpha.80, for a cluster of 3 or 5 nodes or for an embedded node:
//!
//! - [`QuorateProcesses`] implements `ProcessRegistry`,
//! - [`QuorateSessions`] implements `SessionStoreFactory`,
//! - [`QuorateSession`] implements `RuntimePersistence` and `AttachmentManifest`.
//!
//! No type of lash's is known to the cluster: it keeps processes, events, grants, leases and
//! sessions of its own, and lash's values as JSON inside them, so the command line shows what lash
//! stored (`quorate process list lash/`, `quorate session list lash/`). `docs/LASH.md` has a row
//! for every method: what serves it, what is atomic, what differs, which test shows it.
//!
//! # What a call costs
//!
//! A *write* is one command: committed by a majority, on disk there. A *read* is linearizable: one
//! round of the leader to a majority, no log entry. Long listings take one read a page (1,000 rows
//! or 2 MiB). What the traits call atomic is one write. A process's definition is read once and
//! then kept.
//!
//! | method | writes | reads |
//! |---|---|---|
//! | `register_process`, `grant_handle`, `revoke_handle`, `transfer_handle_grants` | 1 | 0 |
//! | `delete_session_process_state`, `ack_wake` | 1 | 0 |
//! | `claim_process_lease`, `renew_process_lease`, `complete_process_lease` | 1 | 0 |
//! | `append_event`, `complete_process` | 1 | 1 at the first use of a process, then 0 |
//! | `set_external_ref`, `set_process_wait`, `clear_process_wait` | 1 | the same |
//! | `events_after`, `wake_events_after`, `recent_events` | 0 | 1, and 1 at the first use |
//! | `count_events_through`, `has_handle_grant`, `get_process` | 0 | 1 |
//! | `handle_grants_for_process` | 0 | 1 |
//! | `list_handle_grants`, `list_live_handle_grants` | 0 | 1 |
//! | `list_processes`, `list_non_terminal` | 0 | 1 |
//! | `wait_event_after`, `await_process` | 0 | 1, and 1 after each change of the process |
//!
//! `list_non_terminal` and filters by status read an index of that state: processes that have ended
//! cost them nothing. `count_events_through` and `wait_event_after` read an index of the event's
//! type, `wake_events_after` one of the wakes that are pending.
//!
//! Of sessions:
//!
//! | method | writes | reads |
//! |---|---|---|
//! | `commit_runtime_state` | 1, and 1 when it brings a new snapshot | 0 |
//! | `load_session` | 0 | 1, 1 a page of nodes, 1 a snapshot |
//! | `load_node`, `load_session_meta` | 0 | 1 |
//! | `save_session_meta` | 1 | 0 |
//! | `try_claim_…`, `release_session_execution_lease` | 1 | 0 |
//! | `renew_session_execution_lease` | 1 | 1 if another handle claimed it |
//! | `reclaim_session_execution_lease` | 1, 2 to take it from a dead holder, 3 if another did | 0 |
//! | `enqueue_…`, `renew_…`, `abandon_…` and `cancel_…` of inputs and queued work | 1 | 0 |
//! | `claim_…` of inputs and queued work | 1 | 1 if the owner names its process |
//! | `list_…` of inputs and queued work | 0 | 1 a page |
//! | `tombstone_nodes` | 1 for each 4,096 nodes | 0 |
//! | `vacuum` | 1 for each 256 rows, 1 at least | 0 |
//! | `gc_unreachable` | 1 for each 256 blobs or 1 MiB, 1 at least | 1 |
//! | `record_intent`, `forget` | 1 | 0 |
//! | `commit_refs` | 1 for each 1,024 attachments | 0 |
//! | `list_uncommitted` | 0 | 1 a page |
//! | `create_store`, `delete_session` | 1 | 0 |
//! | `open_existing_store` | 0 | 1 |
//!
//! The first call of a handle that is not the factory's costs one more: it opens the session, or
//! looks for it. What is too large for a command (64 KiB of a body, 2 MiB of all) goes before it as
//! blobs, in writes of 2 MiB or 64 blobs, and is read by itself. A whole graph (`ReplaceFull`) that
//! begins with the nodes that this handle has read or written last sends only those behind them; a
//! graph of more than 1 MiB or 4,096 nodes that replaces another is staged before the commit, in
//! parts of that size.
//!
//! # Blocking
//!
//! `AttachmentManifest` is synchronous: its methods block their thread, and a thread of the
//! adapter's does the work. An embedded node on a runtime of one thread needs threads of its own
//! (`Node::builder().own_threads(n)`), or it stands still with its caller.
//!
//! # Retries
//!
//! A write whose answer was lost is repeated until the timeout and is done once: by its own
//! identity (a registration, an event with a replay key, a lease token, a turn stamp), else by a
//! request id. lash takes any error of a lease for its loss, and repeats nothing itself, so claims
//! and renewals of leases go on for the TTL that they ask for.
//!
//! # Leases
//!
//! The fencing token is the log index of the grant ([`FencingTokens`] has the other choice). The
//! cluster holds a lease for [`LEASE_MARGIN`] longer than it says. A TTL of 0 is over at once.
//! [`QuorateProcesses::fenced_by`] gives a worker a registry whose writes to its process are
//! refused once its lease is over. Commits of a session and claims of its work ask for its
//! execution lease by themselves; claims have a TTL of their own, without a margin.
//!
//! # Limits
//!
//! Ids, event types and replay keys are names: 1 to 512 bytes with the namespace, no control
//! characters. A registration, a payload and an outcome hold 1 MiB each, an external reference, a
//! wait and a descriptor 16 KiB. A session has 10,000 grants and is woken by 10,000 processes at
//! most, one transfer moves 1,024 grants.
//!
//! The id of a session has 240 bytes with the namespace. A node, an input, a batch, the state and
//! each snapshot hold 64 MiB; one `Append` has 4,096 nodes, a graph 10,000,000; a claim takes 1,024
//! batches or inputs, a session has 100,000 batches and 4,096 open inputs. What is beyond is
//! refused with both numbers.

mod append;
mod builder;
mod error;
mod lease;
mod names;
mod processes;
mod read;
mod record;
mod registry;
mod sessions;

pub use builder::{Builder, FencingTokens};
pub use lease::LEASE_MARGIN;
pub use registry::QuorateProcesses;
pub use sessions::{QuorateSession, QuorateSessions};
