//! What the sweep does with sessions. Subjects name the session and its id: what is left of a
//! deleted session in the due index means nothing to a new one of the same name.

use super::content::BlobHash;
use super::{GraphId, Session, SessionId, blobs, garbage, graph, work};
use crate::context::Context;
use crate::id::Name;
use crate::refusal::Broken;
use crate::tables::{DueKind, DueSubject, due_key, session_row_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// The subject of a due entry of a session.
pub(super) fn due_subject(session: &Session, rest: &[u8]) -> Vec<u8> {
    subject_of(&session.name, session.id, rest)
}

fn subject_of(name: &Name, id: SessionId, rest: &[u8]) -> Vec<u8> {
    let mut subject = name.as_str().as_bytes().to_vec();
    subject.push(0);
    subject.extend_from_slice(&id.0.to_be_bytes());
    subject.extend_from_slice(rest);
    subject
}

/// Files a due entry of a session.
pub(super) fn file(
    tx: &mut Transaction<'_>,
    session: &Session,
    kind: DueKind,
    rest: &[u8],
    at: Timestamp,
) -> Result<(), Broken> {
    tx.put(&due_key(at, kind, &due_subject(session, rest)), &())
}

/// Files the next step of a removal: it comes with the next entry or tick.
pub(super) fn file_removal(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    (name, id): (&Name, SessionId),
    graph: GraphId,
) -> Result<(), Broken> {
    let subject = subject_of(name, id, &graph.0.to_be_bytes());
    tx.put(&due_key(ctx.now, DueKind::SessionGarbage, &subject), &())
}

/// A due entry of a session came by.
pub(crate) fn end_due(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    kind: DueKind,
    subject: &DueSubject<'_>,
) -> Result<(), Broken> {
    let name = &subject.name;
    let broken = || Broken(format!("a due entry of session {name} has no meaning"));
    let (id, rest) = subject.rest().split_first_chunk().ok_or_else(broken)?;
    let id = SessionId(u64::from_be_bytes(*id));
    let number = || rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    if kind == DueKind::SessionGarbage {
        let graph = GraphId(number().ok_or_else(broken)?);
        return garbage::remove_some(tx, ctx, (name, id), graph);
    }
    let session = tx.get(&session_row_key(name))?;
    let Some(mut session) = session.filter(|session| session.id == id) else {
        return Ok(());
    };
    match kind {
        DueKind::SessionBlob => {
            let hash = BlobHash(rest.try_into().map_err(|_| broken())?);
            blobs::look(tx, ctx.now, &mut session, hash)?;
        }
        DueKind::SessionGraph => {
            let graph = GraphId(number().ok_or_else(broken)?);
            graph::look(tx, ctx, &session, graph)?;
        }
        DueKind::SessionWork => {
            let number = number().ok_or_else(broken)?;
            let lane = rest.get(8..).unwrap_or_default();
            let lane = Name::parse_bytes("lane", lane).map_err(|_| broken())?;
            work::release_delayed(tx, &session, &lane, number)?;
        }
        _ => return Err(broken()),
    }
    session.store(tx)
}
