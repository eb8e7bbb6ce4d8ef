//! Queued work of a lane: pushed by anybody, claimed by its executor, settled by a commit.
//!
//! Work is taken from the front: the first piece that can be taken decides, and what it does not
//! let pass stays behind it. A command is taken alone. Turn work is taken alone, or together with
//! what follows it directly in the same group.

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::{LaneClaim, Session, blobs, count_down};
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSION_ANSWER_BYTES_MAX;
use crate::refusal::{Broken, Failure, Refusal};
use crate::tables::{
    DueKind, SessionDelayedWork, SessionWork, SessionWorkSources, body_key, due_key, lane_key,
    lane_name_key,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

mod abandon;
mod cancel;
mod claim;
mod push;
mod renew;

pub use abandon::{AbandonWork, WorkAbandoned};
pub use cancel::CancelWork;
pub use claim::{ClaimWork, ClaimedWork, WorkChoice};
pub use push::{PushWork, WorkPushed};
pub use renew::{RenewWork, WorkRenewed};

/// What kind of work. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkClass {
    /// Done by itself, between turns.
    Command,
    /// Goes into a turn.
    Turn,
}

/// A piece of work, without what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Names it for ever; grows with every push.
    pub number: u64,
    /// Whose it is.
    pub lane: Name,
    /// Guards against a second push while it is there.
    pub source: Option<Name>,
    /// What kind it is.
    pub class: WorkClass,
    /// Whether it may go into a turn that runs already.
    pub anytime: bool,
    /// Opaque: taken together with what follows it directly in the same group. None: taken alone.
    pub group: Option<Vec<u8>>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// From when on it can be claimed.
    pub available_at: Timestamp,
    /// Claims so far.
    pub claims: u64,
    /// The last claim, live or not, unless it was given up.
    pub claim: Option<LaneClaim>,
}

/// A piece of work with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkView {
    /// The row.
    pub work: Work,
    /// Opaque.
    pub body: Content,
}

impl Work {
    /// Whether a claim keeps others from it at `now`.
    #[must_use]
    pub fn is_claimed(&self, now: Timestamp) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.is_live(now))
    }

    /// Work is in one table until its time has come, and in the other from then on.
    fn store(&self, tx: &mut Transaction<'_>, session: &Session) -> Result<(), Broken> {
        tx.put(
            &lane_key::<SessionWork>(session.id, &self.lane, self.number),
            self,
        )
    }
}

/// Work by its number, and whether it is delayed.
fn find(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    number: u64,
) -> Result<Option<(Work, bool)>, Broken> {
    if let Some(work) = tx.get(&lane_key::<SessionWork>(session.id, lane, number))? {
        return Ok(Some((work, false)));
    }
    let delayed = tx.get(&lane_key::<SessionDelayedWork>(session.id, lane, number))?;
    Ok(delayed.map(|work| (work, true)))
}

/// What a piece of work or an input holds.
pub(super) fn body(
    tx: &mut Transaction<'_>,
    session: &Session,
    number: u64,
) -> Result<Content, Broken> {
    tx.get(&body_key(session.id, number))?.ok_or_else(|| {
        let name = &session.name;
        Broken(format!("{number} of session {name} has no body"))
    })
}

/// Takes work out, with all that finds it. The session's row is left to the caller.
fn remove(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    work: &Work,
) -> Result<(), Broken> {
    let (id, lane, number) = (session.id, &work.lane, work.number);
    tx.delete(&lane_key::<SessionWork>(id, lane, number))?;
    tx.delete(&lane_key::<SessionDelayedWork>(id, lane, number))?;
    if let Some(source) = &work.source {
        tx.delete(&lane_name_key::<SessionWorkSources>(id, lane, source))?;
    }
    let body = body(tx, session, number)?;
    blobs::release(tx, ctx.now, session, body.blobs())?;
    tx.delete(&body_key(id, number))?;
    count_down(session, |session| &mut session.work, 1)
}

/// Removes claimed work because a commit has done it.
pub(super) fn settle(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    lane: &Name,
    number: u64,
) -> Result<(), Failure> {
    match find(tx, session, lane, number)? {
        Some((work, _)) => Ok(remove(tx, ctx, session, &work)?),
        None => Err(Broken(format!("work {number} was there and is gone")).into()),
    }
}

/// The claim that has this work, live or not.
pub(super) fn claim_of(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    number: u64,
) -> Result<Option<LaneClaim>, Broken> {
    let work = tx.get(&lane_key::<SessionWork>(session.id, lane, number))?;
    Ok(work.and_then(|work| work.claim))
}

/// The rest of a due subject of delayed work: number, then lane.
fn due_rest(work: &Work) -> Vec<u8> {
    let mut rest = work.number.to_be_bytes().to_vec();
    rest.extend_from_slice(work.lane.as_str().as_bytes());
    rest
}

/// The time of delayed work has come.
pub(super) fn release_delayed(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    number: u64,
) -> Result<(), Broken> {
    let key = lane_key::<SessionDelayedWork>(session.id, lane, number);
    let Some(work) = tx.get(&key)? else {
        return Err(Broken(format!(
            "delayed work {number} has a due entry and no row"
        )));
    };
    tx.delete(&key)?;
    work.store(tx, session)
}

/// Takes the due entry of delayed work back.
fn unfile(tx: &mut Transaction<'_>, session: &Session, work: &Work) -> Result<(), Broken> {
    let subject = super::due::due_subject(session, &due_rest(work));
    tx.delete(&due_key(work.available_at, DueKind::SessionWork, &subject))
}

/// Refuses an answer that would hold more than answers may.
pub(super) fn check_answer(what: &str, bytes: usize) -> Result<(), Refusal> {
    if bytes <= SESSION_ANSWER_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::Exhausted {
        what: format!("bytes of {what} in one answer"),
        limit: SESSION_ANSWER_BYTES_MAX as u64,
        actual: bytes as u64,
    })
}
