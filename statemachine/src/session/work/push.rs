//! Push work: queue something for a lane.

use serde::{Deserialize, Serialize};

use super::{Work, WorkClass, WorkView, body, due_rest, find};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{SESSION_TEXT_BYTES_MAX, SESSION_WORK_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::session::content::Content;
use crate::session::due::file;
use crate::session::{Session, SessionRef, blobs, check_name};
use crate::tables::{
    DueKind, SessionDelayedWork, SessionWorkSources, body_key, lane_key, lane_name_key,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Queues work for a lane, behind all that is queued.
///
/// Promises that work with the same `source` is in the lane once: while it is there, pushing it
/// again answers what was pushed first, whatever the second try holds. Asks for no lease. Refuses
/// with `NotFound` for the session or a blob, and with `Exhausted` at the limit of work. Give it a
/// request id: a late retry would queue it again after it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushWork {
    /// Where.
    pub session: SessionRef,
    /// For whom.
    pub lane: Name,
    /// Guards against a second push while it is there.
    pub source: Option<Name>,
    /// What kind it is.
    pub class: WorkClass,
    /// Whether it may go into a turn that runs already.
    pub anytime: bool,
    /// What it is taken together with; see [`Work`].
    pub group: Option<Vec<u8>>,
    /// Cluster time from which on it can be claimed; what is over is at once.
    pub available_at: Timestamp,
    /// Opaque.
    pub body: Content,
}

/// The answer.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkPushed {
    /// It is queued now.
    Queued {
        /// Its number.
        number: u64,
        /// When it was pushed.
        pushed_at: Timestamp,
    },
    /// Its source was there already, with this.
    Known(WorkView),
}

impl Validate for PushWork {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        let group = self.group.as_ref().map_or(0, Vec::len);
        InvalidArgument::check_bytes("group", group, SESSION_TEXT_BYTES_MAX)?;
        self.body.validate("body")
    }
}

impl PushWork {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<WorkPushed, Failure> {
        let mut session = self.session.require(tx)?;
        if let Some(known) = self.known(tx, &session)? {
            return Ok(WorkPushed::Known(known));
        }
        let work = || format!("queued work of session {}", session.name);
        Refusal::check_room(work, session.work, SESSION_WORK_MAX)?;
        blobs::refer_content(tx, &mut session, &self.body)?;
        session.work += 1;
        let work = self.new_work(ctx);
        self.write(tx, ctx, &session, &work)?;
        session.store(tx)?;
        Ok(WorkPushed::Queued {
            number: work.number,
            pushed_at: work.pushed_at,
        })
    }

    fn known(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
    ) -> Result<Option<WorkView>, Broken> {
        let Some(source) = &self.source else {
            return Ok(None);
        };
        let key = lane_name_key::<SessionWorkSources>(session.id, &self.lane, source);
        let Some(number) = tx.get(&key)? else {
            return Ok(None);
        };
        let Some((work, _)) = find(tx, session, &self.lane, number)? else {
            return Err(Broken(format!("source {source} is known and has no work")));
        };
        let body = body(tx, session, number)?;
        Ok(Some(WorkView { work, body }))
    }

    fn new_work(&self, ctx: &Context) -> Work {
        Work {
            number: ctx.number(),
            lane: self.lane.clone(),
            source: self.source.clone(),
            class: self.class,
            anytime: self.anytime,
            group: self.group.clone(),
            pushed_at: ctx.now,
            available_at: self.available_at,
            claims: 0,
            claim: None,
        }
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &Session,
        work: &Work,
    ) -> Result<(), Broken> {
        tx.put_new(&body_key(session.id, work.number), &self.body)?;
        if let Some(source) = &self.source {
            let key = lane_name_key::<SessionWorkSources>(session.id, &self.lane, source);
            tx.put(&key, &work.number)?;
        }
        if work.available_at <= ctx.now {
            return work.store(tx, session);
        }
        let at = work.available_at;
        file(tx, session, DueKind::SessionWork, &due_rest(work), at)?;
        let key = lane_key::<SessionDelayedWork>(session.id, &self.lane, work.number);
        tx.put(&key, work)
    }
}
