//! What is damaged on a disk stops the node with facts, and never panics.

use quorate_statemachine::transaction::Changes;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Broken, Command, Entry, Timestamp, apply};

mod locks;
mod sessions;

/// What an entry changes.
fn at(view: &MemoryView, index: u64, now: u64, command: &Command) -> Result<Changes, Broken> {
    let command = command.encode();
    let entry = Entry {
        index,
        proposed_at: Timestamp(now),
        command: &command,
        principal: quorate_statemachine::Principal::Cluster,
    };
    apply(view, entry).map(|applied| applied.changes)
}

/// A state in which one row was replaced.
fn damaged(view: &MemoryView, key: &[u8], value: Option<&[u8]>) -> MemoryView {
    let mut view = view.clone();
    view.commit(vec![(
        key.to_vec(),
        value.map(|value| value.to_vec().into()),
    )]);
    view
}
