//! The policy table: what each command and query asks for.
//!
//! Every match is exhaustive, so that a new command does not compile until it has its line here. A
//! listing needs its prefix, as if it were a key: all that it can show starts with that. What names
//! two things needs both.

use super::{Noun, Verb};
use crate::command::Action;
use crate::fencing::Precondition;
use crate::id::Name;
use crate::notice::Notice;
use crate::query::Query;
use crate::{cluster, lease, lock, process, queue, session};

/// One thing that must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need<'a> {
    /// On which kind of thing.
    pub noun: Noun,
    /// How much.
    pub verb: Verb,
    /// On which key, or on all that start with it. Empty for the cluster and for access control.
    pub key: &'a str,
}

/// Shorthand for the tables below.
fn need(noun: Noun, verb: Verb, key: &Name) -> Need<'_> {
    let key = key.as_str();
    Need { noun, verb, key }
}

/// What may be read: a key, or a prefix.
#[must_use]
pub fn look(noun: Noun, key: &str) -> Need<'_> {
    let verb = Verb::Read;
    Need { noun, verb, key }
}

/// The same on the cluster as a whole.
#[must_use]
pub fn whole(noun: Noun, verb: Verb) -> Need<'static> {
    Need {
        noun,
        verb,
        key: "",
    }
}

/// What a condition tells of when it does not hold.
pub(super) fn of_precondition(precondition: &Precondition) -> Need<'_> {
    match precondition {
        Precondition::Lease { key, .. } => need(Noun::Lease, Verb::Read, key),
        Precondition::Claim { queue, .. } => need(Noun::Queue, Verb::Read, queue),
        Precondition::Lock { key, .. } => need(Noun::Lock, Verb::Read, key),
        Precondition::Process { id } => need(Noun::Process, Verb::Read, id),
    }
}

/// What an action asks for; all of it must be allowed.
#[must_use]
pub fn of_action(action: &Action) -> Vec<Need<'_>> {
    match action {
        Action::Lease(command) => of_lease(command).into_iter().collect(),
        Action::Lock(command) => of_lock(command).into_iter().collect(),
        Action::Queue(command) => vec![need(Noun::Queue, Verb::Write, of_queue(command))],
        Action::Process(command) => of_process(command),
        Action::Session(command) => vec![need(Noun::Session, Verb::Write, of_session(command))],
        Action::Cluster(command) => vec![whole(Noun::Cluster, of_cluster(command))],
        Action::Access(_) => vec![whole(Noun::Access, Verb::Admin)],
        Action::Composite(steps) => steps.iter().flat_map(of_action).collect(),
    }
}

/// Looking whether the cluster is well takes an entry, and changes nothing.
fn of_cluster(command: &cluster::Command) -> Verb {
    use cluster::Command;
    match command {
        Command::Tick(_) | Command::RecordDigest(_) => Verb::Write,
        Command::Found(_)
        | Command::AllocateNodeId(_)
        | Command::SetVersion(_)
        | Command::HoldVersion(_)
        | Command::NoteAction(_) => Verb::Admin,
    }
}

/// Gathered renewals are checked one by one, so that a denied one takes no other with it.
fn of_lease(command: &lease::Command) -> Option<Need<'_>> {
    use lease::Command;
    Some(match command {
        Command::Claim(claim) => need(Noun::Lease, Verb::Write, &claim.key),
        Command::Renew(renew) => lease_renewal(renew),
        Command::RenewMany(_) => return None,
        Command::Release(release) => need(Noun::Lease, Verb::Write, &release.key),
        Command::Reclaim(reclaim) => need(Noun::Lease, Verb::Write, &reclaim.claim.key),
        Command::Revoke(revoke) => need(Noun::Lease, Verb::Admin, &revoke.key),
    })
}

pub(crate) fn lease_renewal(renew: &lease::Renew) -> Need<'_> {
    need(Noun::Lease, Verb::Write, &renew.key)
}

fn of_lock(command: &lock::Command) -> Option<Need<'_>> {
    use lock::Command;
    Some(match command {
        Command::Acquire(acquire) => need(Noun::Lock, Verb::Write, &acquire.key),
        Command::Renew(renew) => lock_renewal(renew),
        Command::RenewMany(_) => return None,
        Command::Release(release) => need(Noun::Lock, Verb::Write, &release.key),
        Command::CancelWait(cancel) => need(Noun::Lock, Verb::Write, &cancel.key),
        Command::Revoke(revoke) => need(Noun::Lock, Verb::Admin, &revoke.key),
        Command::Proclaim(proclaim) => need(Noun::Lock, Verb::Write, &proclaim.key),
    })
}

pub(crate) fn lock_renewal(renew: &lock::Renew) -> Need<'_> {
    need(Noun::Lock, Verb::Write, &renew.key)
}

/// The queue that is written.
fn of_queue(command: &queue::Command) -> &Name {
    use queue::Command;
    match command {
        Command::Push(push) => &push.queue,
        Command::Claim(claim) => &claim.queue,
        Command::Renew(renew) => &renew.queue,
        Command::Settle(settle) => &settle.queue,
        Command::Cancel(cancel) => &cancel.queue,
        Command::Requeue(requeue) => &requeue.queue,
    }
}

/// Grants show a process to a scope and count against a session: they need all three.
fn of_process(command: &process::Command) -> Vec<Need<'_>> {
    use process::Command;
    fn write(id: &Name) -> Need<'_> {
        need(Noun::Process, Verb::Write, id)
    }
    fn session(name: &Name) -> Need<'_> {
        need(Noun::Session, Verb::Write, name)
    }
    match command {
        Command::Register(register) => {
            let wakes = register.wake_target.iter();
            let wakes = wakes.map(|target| session(&target.session));
            std::iter::once(write(&register.id)).chain(wakes).collect()
        }
        Command::Append(append) => vec![write(&append.id)],
        Command::Complete(complete) => vec![write(&complete.id)],
        Command::SetExternalRef(set) => vec![write(&set.id)],
        Command::SetWait(set) => vec![write(&set.id)],
        Command::AckWake(ack) => vec![write(&ack.id)],
        Command::PutGrant(put) => {
            let grant = &put.grant;
            vec![
                write(&grant.process_id),
                write(&grant.scope),
                session(&grant.session),
            ]
        }
        Command::DeleteGrant(delete) => vec![write(&delete.process_id), write(&delete.scope)],
        Command::MoveGrants(moved) => {
            let ends = [write(&moved.from), write(&moved.to)];
            let ids = moved.process_ids.iter().map(write);
            let all = ends.into_iter().chain([session(&moved.to_session)]);
            all.chain(ids).collect()
        }
        Command::DetachSession(detach) => vec![session(&detach.session)],
    }
}

/// The session that is written. All its rows hang on its name, which each command checks together
/// with the id.
fn of_session(command: &session::Command) -> &Name {
    use session::Command;
    match command {
        Command::Open(open) => &open.name,
        Command::Delete(delete) => &delete.name,
        Command::PutNote(command) => &command.session.name,
        Command::PutBlobs(command) => &command.session.name,
        Command::StageNodes(command) => &command.session.name,
        Command::Commit(command) => &command.session.name,
        Command::Tombstone(command) => &command.session.name,
        Command::Vacuum(command) => &command.session.name,
        Command::Collect(command) => &command.session.name,
        Command::PushWork(command) => &command.session.name,
        Command::ClaimWork(command) => &command.session.name,
        Command::RenewWork(command) => &command.session.name,
        Command::AbandonWork(command) => &command.session.name,
        Command::CancelWork(command) => &command.session.name,
        Command::PushInput(command) => &command.session.name,
        Command::ClaimInputs(command) => &command.session.name,
        Command::AbandonInputs(command) => &command.session.name,
        Command::CancelInputs(command) => &command.session.name,
        Command::CancelInputsFrom(command) => &command.session.name,
        Command::NoteAttachment(command) => &command.session.name,
        Command::CommitAttachments(command) => &command.session.name,
        Command::ForgetAttachment(command) => &command.session.name,
    }
}

/// What a query asks for: to read.
#[must_use]
pub fn of_query(query: &Query) -> Vec<Need<'_>> {
    match query {
        Query::Lease(query) => vec![look(Noun::Lease, lease_read(query))],
        Query::Lock(query) => vec![look(Noun::Lock, lock_read(query))],
        Query::Queue(query) => vec![look(Noun::Queue, queue_read(query))],
        Query::Process(query) => process_read(query),
        Query::Session(query) => vec![look(Noun::Session, session_read(query))],
        Query::Access(_) => vec![whole(Noun::Access, Verb::Read)],
    }
}

fn lease_read(query: &lease::Query) -> &str {
    use lease::Query;
    match query {
        Query::Get(get) => get.key.as_str(),
        Query::List(list) => &list.prefix,
        Query::History(of) => of.key.as_str(),
    }
}

fn lock_read(query: &lock::Query) -> &str {
    use lock::Query;
    match query {
        Query::Get(get) => get.key.as_str(),
        Query::List(list) => &list.prefix,
        Query::Waiters(waiters) => waiters.key.as_str(),
        Query::Find(find) => find.key.as_str(),
    }
}

fn queue_read(query: &queue::Query) -> &str {
    use queue::Query;
    match query {
        Query::Get(get) => get.queue.as_str(),
        Query::List(list) => &list.prefix,
        Query::ListItems(list) => list.queue.as_str(),
    }
}

/// Who reads a scope sees the processes granted to it: whoever put the grant may write both.
fn process_read(query: &process::Query) -> Vec<Need<'_>> {
    use process::Query;
    let read = |key| vec![look(Noun::Process, key)];
    match query {
        Query::Get(get) => read(get.id.as_str()),
        Query::List(list) => read(&list.prefix),
        Query::Events(events) => read(events.id.as_str()),
        Query::CountEvents(count) => read(count.id.as_str()),
        Query::GrantsTo(grants) => read(grants.scope.as_str()),
        Query::GrantsOf(grants) => read(grants.process_id.as_str()),
        Query::HasGrant(has) => [read(has.scope.as_str()), read(has.process_id.as_str())].concat(),
    }
}

fn session_read(query: &session::Query) -> &str {
    use session::Query;
    match query {
        Query::Get(get) => get.name.as_str(),
        Query::List(list) => &list.prefix,
        Query::Nodes(query) => query.session.name.as_str(),
        Query::Path(query) => query.session.name.as_str(),
        Query::Node(query) => query.session.name.as_str(),
        Query::Blobs(query) => query.session.name.as_str(),
        Query::Work(query) => query.session.name.as_str(),
        Query::Inputs(query) => query.session.name.as_str(),
        Query::Attachments(query) => query.session.name.as_str(),
    }
}

/// What whoever watches must be allowed to be told of this: to read it.
#[must_use]
pub fn of_notice(notice: &Notice) -> Need<'_> {
    match notice {
        Notice::LeaseGranted { key, .. } | Notice::LeaseEnded { key, .. } => {
            look(Noun::Lease, key.as_str())
        }
        Notice::QueueReady { queue } | Notice::ItemSettled { queue, .. } => {
            look(Noun::Queue, queue.as_str())
        }
        Notice::EventAppended { process_id, .. } | Notice::ProcessChanged { process_id, .. } => {
            look(Noun::Process, process_id.as_str())
        }
        Notice::LockGranted { key, .. }
        | Notice::LockLeft { key, .. }
        | Notice::LockProclaimed { key, .. } => look(Noun::Lock, key.as_str()),
        Notice::DigestRecorded { .. } => look(Noun::Cluster, ""),
    }
}
