//! The one door into the state: [`apply`].
//!
//! Per entry, in this order: cluster time is clamped, what is due is swept (a bounded number of
//! rows), the rights of its principal are checked, the request id is looked up, the preconditions
//! are checked, the command is done, its answer is remembered. Same view and same entry give the
//! same outcome on every node.

use crate::access::Rights;
use crate::command::{Action, Command, Reply, Response};
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Principal;
use crate::limits::{SWEEP_MAX, TICK_SWEEP_MAX};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, Refusal};
use crate::request::{self, Known};
use crate::tables::{Meta, MetaRow, Table, meta_key};
use crate::time::{Timestamp, clamp};
use crate::transaction::{Changes, Finished, Transaction, read};
use crate::view::View;
use crate::{access, cluster, codec, expiry, lease, lock, process, queue, session};

/// One entry of the log, as far as the state machine is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its log index.
    pub index: u64,
    /// Cluster time stamped by the leader that proposed it.
    pub proposed_at: Timestamp,
    /// The encoded [`Command`].
    pub command: &'a [u8],
    /// Who asked for it.
    pub principal: Principal<'a>,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Time and counters after the entry; also among the changes, as a row.
    pub meta: MetaRow,
    /// For the caller.
    pub reply: Reply,
    /// For those who wait or watch, in order.
    pub notices: Vec<Notice>,
    /// For metrics.
    pub figures: Vec<Figure>,
    /// For the store: to be written together with the entry's index.
    pub changes: Changes,
}

/// Applies one entry. An error means that the state or the log is damaged, or was written by a
/// newer build: the node must stop.
pub fn apply(view: &dyn View, entry: Entry<'_>) -> Result<Applied, Broken> {
    let mut meta = read(view, &meta_key())?.unwrap_or_default();
    check_order(&meta, &entry)?;
    let command = Command::decode(entry.command).map_err(|invalid| {
        Broken(format!(
            "entry {} of the log is no command of this build: {invalid}; every member must run a \
             build that knows it",
            entry.index
        ))
    })?;
    meta.now = clamp(meta.now, entry.proposed_at);
    meta.last_index = entry.index;
    let mut tx = Transaction::new(view);
    let rights = Rights::of(&mut tx, entry.principal)?;
    let mut ctx = Context {
        now: meta.now,
        index: entry.index,
        step: 0,
        fence_base: meta.fence_base,
        overdue: false,
        rights: &rights,
    };
    ctx.overdue = sweep(&mut tx, &mut meta, &ctx, &command)?;
    let reply = execute_once(&mut tx, &mut meta, &ctx, &command)?;
    finish(tx, meta, &command, reply)
}

/// The log never goes back, and no entry is applied twice.
fn check_order(meta: &MetaRow, entry: &Entry<'_>) -> Result<(), Broken> {
    if entry.index > meta.last_index {
        return Ok(());
    }
    Err(Broken(format!(
        "entry {} was given to a state that has applied entry {} already",
        entry.index, meta.last_index
    )))
}

/// True when something that is due may be left.
fn sweep(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<bool, Broken> {
    let tick = matches!(command.action, Action::Cluster(cluster::Command::Tick(_)));
    let limit = if tick { TICK_SWEEP_MAX } else { SWEEP_MAX };
    let overdue = expiry::sweep(tx, meta, ctx, limit)?;
    request::evict(tx, meta, ctx.now)?;
    Ok(overdue)
}

/// Rights come first: a remembered answer is for those who may ask for it. A denial is not
/// remembered, so that the same request goes through once the right is granted.
fn execute_once(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Reply, Broken> {
    if let Err(denied) = ctx.rights.check_command(command) {
        return Ok(Reply(Err(denied)));
    }
    let Some(id) = &command.request else {
        return execute(tx, meta, ctx, command);
    };
    match request::look_up(tx, meta, id)? {
        Known::Answered(reply) => Ok(reply),
        Known::New => {
            let reply = execute(tx, meta, ctx, command)?;
            request::remember(tx, meta, ctx, id.id, &reply)?;
            Ok(reply)
        }
    }
}

/// All or nothing: a refusal undoes what the command wrote before it.
fn execute(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Reply, Broken> {
    let meta_before = meta.clone();
    tx.save();
    let outcome = guarded(tx, meta, ctx, command);
    match outcome {
        Ok(response) => Ok(Reply(Ok(response))),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(Failure::Refused(refusal)) => {
            tx.roll_back();
            *meta = meta_before;
            Ok(Reply(Err(refusal)))
        }
    }
}

fn guarded(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    for precondition in &command.preconditions {
        precondition.check(tx, ctx)?;
    }
    match &command.action {
        Action::Composite(steps) => composite(tx, meta, ctx, steps),
        action => dispatch(tx, meta, ctx, action),
    }
}

fn composite(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    steps: &[Action],
) -> Result<Response, Failure> {
    let mut responses = Vec::with_capacity(steps.len());
    for (step, action) in (0u32..).zip(steps) {
        let ctx = Context { step, ..*ctx };
        let response = dispatch(tx, meta, &ctx, action).map_err(|failure| match failure {
            Failure::Refused(refusal) => Failure::Refused(Refusal::Step {
                step,
                refusal: Box::new(refusal),
            }),
            broken @ Failure::Broken(_) => broken,
        })?;
        responses.push(response);
    }
    Ok(Response::Composite(responses))
}

fn dispatch(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    action: &Action,
) -> Result<Response, Failure> {
    match action {
        Action::Lease(command) => lease::apply(tx, meta, ctx, command).map(Response::Lease),
        Action::Queue(command) => queue::apply(tx, meta, ctx, command).map(Response::Queue),
        Action::Process(command) => process::apply(tx, meta, ctx, command).map(Response::Process),
        Action::Cluster(command) => cluster::apply(tx, meta, command).map(Response::Cluster),
        Action::Lock(command) => lock::apply(tx, meta, ctx, command).map(Response::Lock),
        Action::Session(command) => session::apply(tx, meta, ctx, command).map(Response::Session),
        Action::Access(command) => access::apply(tx, ctx, command).map(Response::Access),
        Action::Composite(_) => Err(Broken("a composite inside a composite".to_owned()).into()),
    }
}

/// The meta row holds the digest, so it is no part of it and is written beside the transaction.
fn finish(
    tx: Transaction<'_>,
    mut meta: MetaRow,
    command: &Command,
    reply: Reply,
) -> Result<Applied, Broken> {
    let Finished {
        mut changes,
        digest,
        mut notices,
        figures,
    } = tx.finish(meta.digest);
    meta.digest = digest;
    if let Action::Cluster(cluster::Command::RecordDigest(_)) = command.action {
        notices.push(Notice::DigestRecorded { digest });
    }
    let row = codec::encode(Meta::TAG.into(), &meta);
    changes.insert(0, (meta_key().bytes().to_vec(), Some(row.into())));
    Ok(Applied {
        meta,
        reply,
        notices,
        figures,
        changes,
    })
}
