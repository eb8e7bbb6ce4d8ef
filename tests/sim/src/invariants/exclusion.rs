//! Fenced mutual exclusion, as a resource sees it that checks tokens.

use crate::history::History;

/// Who could be sure of its lease was not turned away for a later holder, and no write of an
/// earlier holder came behind one of a later.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut highest = 0;
    for write in &history.writes {
        if write.taken && write.token < highest {
            wrong.push(format!(
                "the resource took {write:?} behind token {highest}"
            ));
        }
        if write.entitled && !write.taken {
            wrong.push(format!(
                "{write:?} was turned away: token {highest} was there already"
            ));
        }
        highest = highest.max(write.token);
    }
    wrong
}
