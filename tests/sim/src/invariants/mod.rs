//! What must hold, one file each. A check gets the history and says what is wrong in words.

pub mod acknowledged;
pub mod claims;
pub mod digests;
pub mod events;
pub mod exclusion;
pub mod leaders;
pub mod linearizable;
pub mod never_early;
pub mod tokens;

use crate::history::History;

/// All that can be judged from the history alone.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = history.violations.clone();
    wrong.extend(tokens::check(history));
    wrong.extend(exclusion::check(history));
    wrong.extend(never_early::check(history));
    wrong.extend(linearizable::check(history));
    wrong.extend(claims::check(history));
    wrong.extend(events::check(history));
    wrong
}
