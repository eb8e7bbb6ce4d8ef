//! Usage: sums of what a session used, under names of the caller's.

use serde::{Deserialize, Serialize};

use super::Session;
use crate::context::Context;
use crate::limits::{NAME_BYTES_MAX, USAGE_COUNTERS_MAX, USAGE_NUMBERS_MAX};
use crate::refusal::{Failure, InvalidArgument, Refusal};
use crate::tables::usage_key;
use crate::transaction::Transaction;

/// What a commit adds to a counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageDelta {
    /// The counter: opaque, 1 to twice the bytes of a name.
    pub counter: Vec<u8>,
    /// What to add, number by number.
    pub numbers: Vec<i64>,
}

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Which of the session's counters it is, by the time of the first addition.
    pub order: u64,
    /// The sums; they stop at the ends of their range.
    pub numbers: Vec<i64>,
}

impl UsageDelta {
    pub(super) fn validate(&self) -> Result<(), InvalidArgument> {
        let (length, max) = (self.counter.len() as u64, 2 * NAME_BYTES_MAX as u64);
        InvalidArgument::check_count("usage.counter bytes", length, 1, max)?;
        let (count, max) = (self.numbers.len() as u64, USAGE_NUMBERS_MAX as u64);
        InvalidArgument::check_count("usage.numbers", count, 1, max)
    }
}

/// Adds to the session's counters.
pub(super) fn add(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    deltas: &[UsageDelta],
) -> Result<(), Failure> {
    for (at, delta) in (0u64..).zip(deltas) {
        let key = usage_key(session.id, &delta.counter);
        let known = tx.get(&key)?;
        if known.is_none() {
            let counters = || format!("usage counters of session {}", session.name);
            Refusal::check_room(counters, session.usage, USAGE_COUNTERS_MAX as u64)?;
            session.usage += 1;
        }
        let mut usage = known.unwrap_or_else(|| Usage {
            order: ctx.number().saturating_mul(USAGE_COUNTERS_MAX as u64) + at,
            numbers: Vec::new(),
        });
        let longest = usage.numbers.len().max(delta.numbers.len());
        usage.numbers.resize(longest, 0);
        for (sum, number) in usage.numbers.iter_mut().zip(&delta.numbers) {
            *sum = sum.saturating_add(*number);
        }
        tx.put(&key, &usage)?;
    }
    Ok(())
}
