//! Attachments: what is stored elsewhere for a session, noted before it is stored.
//!
//! Who stores something elsewhere notes the intent first; the commit that refers to it stamps it.
//! What was noted long ago and never stamped was left by somebody who died in between, and can be
//! removed there, then forgotten here.

use serde::{Deserialize, Serialize};

use super::{Session, SessionRef, check_name, count_down};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{SESSION_ATTACHMENTS_MAX, SESSION_BATCH_MAX, SESSION_TEXT_BYTES_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::tables::{attachment_key, intent_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Unique in its session.
    pub id: Name,
    /// Whose commits stamp it.
    pub lane: Name,
    /// Where it is stored.
    pub uri: String,
    /// When it was noted, in the words of who did.
    pub intent_at: Timestamp,
    /// When it was stamped.
    pub committed_at: Option<Timestamp>,
}

/// Notes an attachment.
///
/// Promises that it is listed until it is committed or forgotten. One that is known is left as it
/// is. Refuses with `NotFound`, and with `Exhausted` at the limit of attachments. Give it a request
/// id, lest a late retry notes it again after it was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteAttachment {
    /// Whose.
    pub session: SessionRef,
    /// Unique in its session.
    pub id: Name,
    /// Whose commits stamp it.
    pub lane: Name,
    /// Where it is to be stored.
    pub uri: String,
    /// When that is, by the caller's clock: the listing orders by it.
    pub intent_at: Timestamp,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentNoted {
    /// Whether it was not known before.
    pub noted: bool,
}

/// Stamps attachments of one lane as committed.
///
/// Those that are not known, or are another lane's, are ignored, and a stamp stays the first one.
/// Refuses with `NotFound`. A retry changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAttachments {
    /// Whose.
    pub session: SessionRef,
    /// Of which lane.
    pub lane: Name,
    /// Which.
    pub ids: Vec<Name>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentsCommitted {
    /// How many were not stamped before.
    pub stamped: u64,
}

/// Forgets an attachment, stamped or not.
///
/// Refuses with `NotFound` for the session alone. A retry finds nothing more to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAttachment {
    /// Whose.
    pub session: SessionRef,
    /// Which.
    pub id: Name,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentForgotten {
    /// Whether it was known.
    pub existed: bool,
}

impl Validate for NoteAttachment {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        InvalidArgument::check_bytes("uri", self.uri.len(), SESSION_TEXT_BYTES_MAX)
    }
}

impl Validate for CommitAttachments {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        check_ids(&self.ids)
    }
}

impl Validate for ForgetAttachment {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()
    }
}

pub(super) fn check_ids(ids: &[Name]) -> Result<(), InvalidArgument> {
    let (count, max) = (ids.len() as u64, SESSION_BATCH_MAX as u64);
    InvalidArgument::check_count("attachments", count, 0, max)
}

impl NoteAttachment {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<AttachmentNoted, Failure> {
        let mut session = self.session.require(tx)?;
        let key = attachment_key(session.id, &self.id);
        if tx.exists(&key)? {
            return Ok(AttachmentNoted { noted: false });
        }
        let attachments = || format!("attachments of session {}", session.name);
        Refusal::check_room(attachments, session.attachments, SESSION_ATTACHMENTS_MAX)?;
        session.attachments += 1;
        let attachment = Attachment {
            id: self.id.clone(),
            lane: self.lane.clone(),
            uri: self.uri.clone(),
            intent_at: self.intent_at,
            committed_at: None,
        };
        tx.put(&key, &attachment)?;
        tx.put(&intent_key(session.id, &attachment), &())?;
        session.store(tx)?;
        Ok(AttachmentNoted { noted: true })
    }
}

impl CommitAttachments {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<AttachmentsCommitted, Failure> {
        let session = self.session.require(tx)?;
        let stamped = stamp(tx, ctx, &session, &self.lane, &self.ids)?;
        Ok(AttachmentsCommitted { stamped })
    }
}

/// Stamps attachments. How many were not stamped before.
pub(super) fn stamp(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    lane: &Name,
    ids: &[Name],
) -> Result<u64, Broken> {
    let mut stamped = 0;
    for id in ids {
        let key = attachment_key(session.id, id);
        let Some(mut attachment) = tx.get(&key)? else {
            continue;
        };
        if attachment.lane != *lane || attachment.committed_at.is_some() {
            continue;
        }
        tx.delete(&intent_key(session.id, &attachment))?;
        attachment.committed_at = Some(ctx.now);
        tx.put(&key, &attachment)?;
        stamped += 1;
    }
    Ok(stamped)
}

impl ForgetAttachment {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<AttachmentForgotten, Failure> {
        let mut session = self.session.require(tx)?;
        let key = attachment_key(session.id, &self.id);
        let Some(attachment) = tx.get(&key)? else {
            return Ok(AttachmentForgotten { existed: false });
        };
        tx.delete(&key)?;
        tx.delete(&intent_key(session.id, &attachment))?;
        count_down(&mut session, |session| &mut session.attachments, 1)?;
        session.store(tx)?;
        Ok(AttachmentForgotten { existed: true })
    }
}
