//! lash-core's `ProcessRegistry` on a Quorate cluster.
//!
//! [`QuorateProcesses`] implements `lash_core::ProcessRegistry` of lash-core 0.1.0-alpha.80 for a
//! cluster of 3 or 5 nodes or for an embedded node. No type of lash's is known to the cluster: it
//! keeps processes, events, grants and leases of its own, and lash's values as JSON inside them, so
//! the command line shows what lash stored (`quorate process list lash/`).
//!
//! # What a call costs
//!
//! A *write* is one command: committed by a majority, on disk there. A *read* is linearizable: one
//! round of the leader to a majority, no log entry. Long listings take one read a page (1,000 rows
//! or 2 MiB). What the trait calls atomic is one write. A process's definition is read once and
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
//! # Retries
//!
//! A write whose answer was lost is repeated until the timeout and is done once: by its own
//! identity (a registration, an event with a replay key, a lease token), else by a request id. lash
//! takes any error of a lease for its loss, so claims and renewals go on for the TTL that they ask
//! for.
//!
//! # Leases
//!
//! The fencing token is the log index of the grant ([`FencingTokens`] has the other choice). The
//! cluster holds a lease for [`LEASE_MARGIN`] longer than it says. A TTL of 0 is over at once.
//! [`QuorateProcesses::fenced_by`] gives a worker a registry whose writes to its process are
//! refused once its lease is over.
//!
//! # Limits
//!
//! Ids, event types and replay keys are names: 1 to 512 bytes with the namespace, no control
//! characters. A registration, a payload and an outcome hold 1 MiB each, an external reference, a
//! wait and a descriptor 16 KiB. A session has 10,000 grants and is woken by 10,000 processes at
//! most, one transfer moves 1,024 grants. What is beyond is refused with both numbers.

mod append;
mod error;
mod lease;
mod names;
mod processes;
mod read;
mod record;
mod registry;

pub use lease::LEASE_MARGIN;
pub use registry::{Builder, FencingTokens, QuorateProcesses};
