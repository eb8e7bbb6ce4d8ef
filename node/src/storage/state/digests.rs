//! The last recorded digests, for comparison between nodes.

use std::collections::VecDeque;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::notice::Notice;

use super::AppliedNotices;

/// How many are kept: a node that is asked for an older one has nothing to compare.
const DIGESTS_MAX: usize = 64;

/// Digests by the index at which they were recorded, oldest first. Not stored: after a restart, the
/// next comparison fills it again.
#[derive(Debug, Default)]
pub(super) struct Digests(VecDeque<(u64, Digest)>);

impl Digests {
    /// Takes what is recorded in these notices.
    pub fn record(&mut self, applied: &[AppliedNotices]) {
        for entry in applied {
            for notice in &entry.notices {
                if let Notice::DigestRecorded { digest } = notice {
                    self.0.push_back((entry.index, *digest));
                }
            }
        }
        let surplus = self.0.len().saturating_sub(DIGESTS_MAX);
        self.0.drain(..surplus);
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<(u64, Digest)> {
        self.0.iter().copied().collect()
    }
}
