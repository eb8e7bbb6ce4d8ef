//! Who refers to blobs. Bytes and counts are rows of their own, so that counting moves no bytes.
//!
//! A blob that nothing refers to is *loose*: indexed, so that a collection costs what it removes,
//! and filed in the due index, so that it goes by itself after a while. The due entry stays where
//! it is when a reference comes and goes; the sweep looks again.

use serde::{Deserialize, Serialize};

use super::content::{BlobHash, Content};
use super::due::{due_subject, file};
use super::{Session, count_down};
use crate::context::Context;
use crate::limits::{BLOB_RETENTION_MS, SESSION_BLOBS_MAX};
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::tables::{
    DueKind, SessionBlobBytes, SessionBlobs, SessionLooseBlobs, blob_key, due_key,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Who refers to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// How many bytes it has.
    pub bytes: u64,
    /// How often it is referred to.
    pub references: u64,
    /// Since when nothing refers to it, if nothing does.
    pub loose_since: Option<Timestamp>,
    /// Where its due entry is filed, if it has one.
    pub filed_at: Option<Timestamp>,
}

/// Stores a blob that is not there yet.
pub(super) fn add(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    hash: BlobHash,
    bytes: &bytes::Bytes,
) -> Result<(), Failure> {
    let blobs = || format!("blobs of session {}", session.name);
    Refusal::check_room(blobs, session.blobs, SESSION_BLOBS_MAX)?;
    session.blobs += 1;
    session.blob_bytes += bytes.len() as u64;
    tx.put(&blob_key::<SessionBlobBytes>(session.id, hash), bytes)?;
    let mut row = BlobRow {
        bytes: bytes.len() as u64,
        references: 0,
        loose_since: None,
        filed_at: None,
    };
    loosen(tx, ctx.now, session, hash, &mut row)?;
    tx.put(&blob_key::<SessionBlobs>(session.id, hash), &row)?;
    Ok(())
}

/// Keeps a blob that is put again for as long as one that is put first. Its due entry comes early
/// then, and the sweep looks again.
pub(super) fn keep(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    session: &Session,
    hash: BlobHash,
) -> Result<(), Broken> {
    let mut row = require(tx, session, hash)?;
    if row.loose_since.is_none() {
        return Ok(());
    }
    row.loose_since = Some(now);
    tx.put(&blob_key::<SessionBlobs>(session.id, hash), &row)
}

/// Marks a blob as loose; the row is left to the caller.
fn loosen(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    session: &mut Session,
    hash: BlobHash,
    row: &mut BlobRow,
) -> Result<(), Broken> {
    session.loose_blobs += 1;
    row.loose_since = Some(now);
    tx.put(&blob_key::<SessionLooseBlobs>(session.id, hash), &())?;
    if row.filed_at.is_none() {
        let at = now.plus(BLOB_RETENTION_MS);
        row.filed_at = Some(at);
        file(tx, session, DueKind::SessionBlob, &hash.0, at)?;
    }
    Ok(())
}

fn require(tx: &mut Transaction<'_>, session: &Session, hash: BlobHash) -> Result<BlobRow, Broken> {
    tx.get(&blob_key::<SessionBlobs>(session.id, hash))?
        .ok_or_else(|| {
            let name = &session.name;
            Broken(format!(
                "session {name} refers to blob {hash}, which has no row"
            ))
        })
}

/// Refers to blobs: `NotFound` if one is not there, so that its writer puts it again.
pub(super) fn refer<'a>(
    tx: &mut Transaction<'_>,
    session: &mut Session,
    hashes: impl IntoIterator<Item = &'a BlobHash>,
) -> Result<(), Failure> {
    for hash in hashes {
        let key = blob_key::<SessionBlobs>(session.id, *hash);
        let Some(mut row) = tx.get(&key)? else {
            return Err(Failure::Refused(Refusal::NotFound {
                subject: Subject::Blob,
                name: hash.to_string(),
            }));
        };
        if row.loose_since.take().is_some() {
            tx.delete(&blob_key::<SessionLooseBlobs>(session.id, *hash))?;
            count_down(session, |session| &mut session.loose_blobs, 1)?;
        }
        row.references += 1;
        tx.put(&key, &row)?;
    }
    Ok(())
}

/// Refers to the blobs of a content, whose length must be what it says.
pub(super) fn refer_content(
    tx: &mut Transaction<'_>,
    session: &mut Session,
    content: &Content,
) -> Result<(), Failure> {
    let Content::Blobs { hashes, bytes } = content else {
        return Ok(());
    };
    refer(tx, session, hashes)?;
    let mut found = 0;
    for hash in hashes {
        found += require(tx, session, *hash)?.bytes;
    }
    if found == *bytes {
        return Ok(());
    }
    Err(Failure::Refused(Refusal::Conflict {
        subject: Subject::Session,
        name: session.name.to_string(),
        problem: format!("a content says that it has {bytes} bytes, its blobs have {found}"),
    }))
}

/// Refers to blobs no longer.
pub(super) fn release<'a>(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    session: &mut Session,
    hashes: impl IntoIterator<Item = &'a BlobHash>,
) -> Result<(), Broken> {
    for hash in hashes {
        let mut row = require(tx, session, *hash)?;
        row.references = row
            .references
            .checked_sub(1)
            .ok_or_else(|| session.miscounted())?;
        if row.references == 0 {
            loosen(tx, now, session, *hash, &mut row)?;
        }
        tx.put(&blob_key::<SessionBlobs>(session.id, *hash), &row)?;
    }
    Ok(())
}

/// Removes a blob that nothing refers to. How many bytes it had.
pub(super) fn remove(
    tx: &mut Transaction<'_>,
    session: &mut Session,
    hash: BlobHash,
) -> Result<u64, Broken> {
    let row = require(tx, session, hash)?;
    if row.loose_since.is_none() {
        return Err(Broken(format!("blob {hash} is listed as loose and is not")));
    }
    if let Some(at) = row.filed_at {
        let subject = due_subject(session, &hash.0);
        tx.delete(&due_key(at, DueKind::SessionBlob, &subject))?;
    }
    tx.delete(&blob_key::<SessionBlobs>(session.id, hash))?;
    tx.delete(&blob_key::<SessionBlobBytes>(session.id, hash))?;
    tx.delete(&blob_key::<SessionLooseBlobs>(session.id, hash))?;
    count_down(session, |session| &mut session.blobs, 1)?;
    count_down(session, |session| &mut session.loose_blobs, 1)?;
    count_down(session, |session| &mut session.blob_bytes, row.bytes)?;
    Ok(row.bytes)
}

/// The due entry of a blob came by: remove it, or look again later.
pub(super) fn look(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    session: &mut Session,
    hash: BlobHash,
) -> Result<(), Broken> {
    let mut row = require(tx, session, hash)?;
    row.filed_at = None;
    let key = blob_key::<SessionBlobs>(session.id, hash);
    let Some(since) = row.loose_since else {
        return tx.put(&key, &row);
    };
    let over = since.plus(BLOB_RETENTION_MS);
    if over > now {
        row.filed_at = Some(over);
        file(tx, session, DueKind::SessionBlob, &hash.0, over)?;
        return tx.put(&key, &row);
    }
    tx.put(&key, &row)?;
    remove(tx, session, hash).map(drop)
}
