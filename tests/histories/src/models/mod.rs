//! What each noun promises, as a model that a history of it must agree with.
//!
//! A history is linearizable if its operations can be put in one order, each at an instant between
//! its call and its return, in which the model would have answered what the cluster answered. The
//! search is `porcupine-rs`'s (Wing and Gong's, with Lowe's memory of what was seen); a history is
//! of one key, so that it stays small.
//!
//! # What has no known outcome
//!
//! Such an operation returns never. It may take effect at any instant from its call on, or not at
//! all, which is the same as after all others. To keep the search short it is allowed to do nothing
//! only after an operation that ends the history, behind all others. Where a later answer shows
//! that it was done, it was done before that answer, and gets its return from it.
//!
//! # What ends by itself
//!
//! A grant that nobody gave back ends by the passing of time, and nobody is told. So no operation
//! stands for it: an answer that is only possible if a grant is over is taken as the news of its
//! end, and is wrong if it came before the grant could have ended. The earliest end is reckoned
//! from the instant *before* the last grant or renewal was sent, less what cluster time may run
//! fast. How late a grant ends is no matter of a history; what is due after the faults is waited
//! for with a deadline.

pub mod events;
pub mod leases;
pub mod locks;
pub mod queues;
pub mod sessions;

use std::time::Duration;

use anyhow::{Result, bail};
use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use crate::record::{Micros, Record};

/// A check that takes longer has failed.
pub const CHECK_MAX: Duration = Duration::from_secs(300);

/// The return of an operation without a known outcome.
pub const NEVER: Micros = Micros::MAX;

/// A step with the time that it may have had its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed<S> {
    /// None is the end of the history.
    pub step: Option<S>,
    /// Not before.
    pub call: Micros,
    /// Not after.
    pub ret: Micros,
}

/// Whether these operations on one key can be put in an order that the model agrees with.
pub fn linearizable<M, S>(records: &[Record<S>]) -> Result<()>
where
    M: Model<Op = Timed<S>, Metadata = ()>,
    S: Clone,
{
    let mut operations: Vec<Operation<M>> = records.iter().map(operation).collect();
    let returns = records
        .iter()
        .map(|record| record.ret.unwrap_or(record.call));
    let end = returns.max().unwrap_or(0) + 1;
    operations.push(timed(None, u32::MAX, end, end));
    match check_operations_timeout::<M>(&operations, CHECK_MAX) {
        CheckResult::Ok => Ok(()),
        CheckResult::Illegal => bail!("no order of its {} operations fits", records.len()),
        CheckResult::Unknown => bail!("undecided after {CHECK_MAX:?}"),
    }
}

fn operation<M, S>(record: &Record<S>) -> Operation<M>
where
    M: Model<Op = Timed<S>, Metadata = ()>,
    S: Clone,
{
    let ret = record.ret.unwrap_or(NEVER);
    timed(Some(record.step.clone()), record.client, record.call, ret)
}

fn timed<M, S>(step: Option<S>, client: u32, call: Micros, ret: Micros) -> Operation<M>
where
    M: Model<Op = Timed<S>, Metadata = ()>,
{
    Operation {
        client_id: Some(client),
        call_time: call,
        return_time: ret,
        op: Timed { step, call, ret },
        metadata: None,
    }
}

/// The earliest instant at which a time to live is over that began at `from`: cluster time runs at
/// most a twentieth faster than real time (docs/GUARANTEES.md), and has whole milliseconds.
#[must_use]
pub fn earliest_end(from: Micros, ttl_ms: u64) -> Micros {
    let ttl = Micros::try_from(ttl_ms).unwrap_or(Micros::MAX / 2_000) * 1_000;
    from + ttl * 20 / 21 - 2_000
}

/// A token that was shown: the known one, or one above all that were seen before.
fn learned(known: Option<u64>, shown: u64, highest: u64) -> bool {
    match known {
        Some(known) => known == shown,
        None => shown > highest,
    }
}

/// Histories by hand, for tests of the models.
pub mod hand {
    use super::{Micros, Record};

    /// An operation from `call` to `ret`, in milliseconds.
    #[must_use]
    pub fn op<S>(call: Micros, ret: Micros, step: S) -> Record<S> {
        Record {
            key: "k".to_owned(),
            client: 1,
            call: call * 1_000,
            ret: Some(ret * 1_000),
            step,
        }
    }

    /// An operation without a known outcome.
    #[must_use]
    pub fn lost<S>(call: Micros, step: S) -> Record<S> {
        Record {
            ret: None,
            ..op(call, 0, step)
        }
    }
}
