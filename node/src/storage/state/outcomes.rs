//! How the last commands ended, for the audit: the log has what was asked, not what came of it.

use std::collections::BTreeMap;

use quorate_statemachine::access::audit;

/// Commands that ended otherwise than well that are kept.
const KEPT_MAX: usize = 65_536;

/// By log index those that ended otherwise than well; all others since the beginning ended well.
/// Not stored: a node knows what it has applied since it started.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// Entries above it are known.
    known_above: u64,
    others: BTreeMap<u64, &'static str>,
}

impl Outcomes {
    /// Of a state that has applied entries up to `applied`.
    pub fn new(applied: u64) -> Self {
        Self {
            known_above: applied,
            others: BTreeMap::new(),
        }
    }

    /// Takes in how an entry ended.
    pub fn record(&mut self, index: u64, outcome: &'static str) {
        if outcome == audit::OK {
            return;
        }
        if self.others.len() == KEPT_MAX
            && let Some((oldest, _)) = self.others.pop_first()
        {
            self.known_above = oldest;
        }
        self.others.insert(index, outcome);
    }

    /// How an applied entry ended; none if that is not known any more.
    pub fn of(&self, index: u64) -> Option<&'static str> {
        if index <= self.known_above {
            return None;
        }
        Some(self.others.get(&index).copied().unwrap_or(audit::OK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_told_from_what_was_done() {
        let mut outcomes = Outcomes::new(7);
        outcomes.record(8, audit::OK);
        outcomes.record(9, "fenced");
        let known: Vec<_> = (6..=9).map(|index| outcomes.of(index)).collect();
        assert_eq!(known, [None, None, Some("ok"), Some("fenced")]);
    }

    #[test]
    fn the_oldest_are_forgotten_and_never_taken_for_done() {
        let mut outcomes = Outcomes::new(0);
        for index in 1..=KEPT_MAX as u64 + 1 {
            outcomes.record(index, "denied");
        }
        assert_eq!(outcomes.of(1), None);
        assert_eq!(outcomes.of(2), Some("denied"));
    }
}
