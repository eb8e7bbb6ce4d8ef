//! Open: make a session, or find it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Session, SessionId, check_name, check_payload};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSIONS_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal};
use crate::tables::{MetaRow, SessionNotes, session_one_key, session_row_key};
use crate::transaction::Transaction;

/// Makes the session `name`, or finds it there.
///
/// Promises that there is one, with the id that is answered. The note is written only if the
/// session has none. Refuses with `Exhausted` when there are too many sessions. A retry finds what
/// the first try made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its name.
    pub name: Name,
    /// What to note at it; see [`super::PutNote`].
    pub note: Option<Bytes>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Names it in all other commands.
    pub id: SessionId,
    /// Whether it was made now.
    pub created: bool,
}

impl Validate for Open {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_name("session", &self.name)?;
        self.note
            .iter()
            .try_for_each(|note| check_payload("note", note))
    }
}

impl Open {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Opened, Failure> {
        let found = tx.get(&session_row_key(&self.name))?;
        let opened = Opened {
            id: found
                .as_ref()
                .map_or(SessionId(ctx.number()), |session| session.id),
            created: found.is_none(),
        };
        if opened.created {
            Refusal::check_room(|| "sessions".to_owned(), meta.sessions, SESSIONS_MAX)?;
            meta.sessions += 1;
            self.new_session(ctx).store(tx)?;
        }
        let key = session_one_key::<SessionNotes>(opened.id);
        if let Some(note) = &self.note
            && !tx.exists(&key)?
        {
            tx.put(&key, note)?;
        }
        Ok(opened)
    }

    fn new_session(&self, ctx: &Context) -> Session {
        Session {
            name: self.name.clone(),
            id: SessionId(ctx.number()),
            created_at: ctx.now,
            blobs: 0,
            loose_blobs: 0,
            blob_bytes: 0,
            usage: 0,
            work: 0,
            inputs: 0,
            ended_inputs: 0,
            attachments: 0,
        }
    }
}
