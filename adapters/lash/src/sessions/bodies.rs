//! Bytes of any size: in the command that needs them while they are few, and otherwise as blobs
//! that are put before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use lash_core::StoreError;
use quorate_client::ClientError;
use quorate_statemachine::limits::{
    BLOBS_PER_COMMAND_MAX, CONTENT_BLOBS_MAX, CONTENT_INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX,
};
use quorate_statemachine::session::{BlobHash, Content, PutBlobs, SessionRef};
use quorate_statemachine::{Operation, Refusal, Subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::QuorateSession;
use super::error::{Result, backend};

/// Bytes that one command has in itself; the rest of its 4 MiB is for names and numbers.
const COMMAND_INLINE_BYTES: usize = 2 << 20;

/// Bytes that a command of blobs has: several commands follow each other more smoothly than one.
const PUT_BYTES: usize = 2 << 20;

/// JSON with sorted keys: equal values have equal bytes.
pub(super) fn to_bytes(what: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    crate::record::to_bytes(what, value).map_err(|error| StoreError::Backend(error.to_string()))
}

pub(super) fn from_bytes<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        StoreError::Backend(format!(
            "{what} cannot be read: {error}; it was not written by this adapter"
        ))
    })
}

pub(super) fn hash(bytes: &[u8]) -> BlobHash {
    BlobHash(Sha256::digest(bytes).into())
}

/// What a command needs stored before it, gathered while the command is built.
pub(super) struct Bodies {
    blobs: BTreeMap<BlobHash, Bytes>,
    room: usize,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self {
            blobs: BTreeMap::new(),
            room: COMMAND_INLINE_BYTES,
        }
    }

    /// How many bytes more the command takes in itself.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// The content to put into the command.
    pub(super) fn content(&mut self, what: &str, bytes: Vec<u8>) -> Result<Content> {
        if bytes.len() <= CONTENT_INLINE_BYTES_MAX.min(self.room) {
            self.room -= bytes.len();
            return Ok(Content::Inline(bytes.into()));
        }
        let length = bytes.len() as u64;
        Ok(Content::Blobs {
            hashes: self.blobs(what, bytes)?,
            bytes: length,
        })
    }

    /// The blobs of a value; an empty one has one too.
    pub(super) fn blobs(&mut self, what: &str, bytes: Vec<u8>) -> Result<Vec<BlobHash>> {
        let longest = CONTENT_BLOBS_MAX * PAYLOAD_BYTES_MAX;
        if bytes.len() > longest {
            return Err(StoreError::Backend(format!(
                "{what} is too large: limit {longest} bytes, actual {} bytes",
                bytes.len()
            )));
        }
        let bytes = Bytes::from(bytes);
        let mut hashes = Vec::new();
        for from in (0..bytes.len().max(1)).step_by(PAYLOAD_BYTES_MAX) {
            let to = bytes.len().min(from + PAYLOAD_BYTES_MAX);
            let chunk = bytes.slice(from..to);
            let hash = hash(&chunk);
            hashes.push(hash);
            self.blobs.insert(hash, chunk);
        }
        Ok(hashes)
    }

    /// Stores the blobs that the session is not known to have.
    async fn put(
        &self,
        store: &QuorateSession,
        session: &SessionRef,
    ) -> std::result::Result<(), ClientError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (hash, blob) in &self.blobs {
            if store.known(|known| known.blobs.get(hash).is_some()) {
                continue;
            }
            let full = batch.len() == BLOBS_PER_COMMAND_MAX || bytes + blob.len() > PUT_BYTES;
            if full && !batch.is_empty() {
                put(store, session, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += blob.len();
            batch.push((*hash, blob.clone()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        put(store, session, batch).await
    }

    /// The session has not what it was known to have: put all of it next time.
    fn forget(&self, store: &QuorateSession) {
        store.known(|known| {
            for hash in self.blobs.keys() {
                known.blobs.pop(hash);
            }
        });
    }

    fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }
}

/// How often a command is tried whose blobs are collected under its hands.
const TRIES: u32 = 5;

fn is_missing_blob(error: &ClientError) -> bool {
    matches!(
        error.refusal(),
        Some(Refusal::NotFound {
            subject: Subject::Blob,
            ..
        })
    )
}

async fn put(
    store: &QuorateSession,
    session: &SessionRef,
    blobs: Vec<(BlobHash, Bytes)>,
) -> std::result::Result<(), ClientError> {
    let hashes: Vec<_> = blobs.iter().map(|(hash, _)| *hash).collect();
    let put = PutBlobs {
        session: session.clone(),
        blobs,
    };
    store.client().execute(put).await?;
    store.known(|known| {
        for hash in hashes {
            known.blobs.put(hash, ());
        }
    });
    Ok(())
}

impl QuorateSession {
    /// Executes a command that needs these bodies. A blob that is not there (any more) is put again
    /// before the command is.
    pub(super) async fn with_bodies<O: Operation + Clone>(
        &self,
        session: &SessionRef,
        bodies: &Bodies,
        operation: O,
    ) -> std::result::Result<O::Reply, ClientError> {
        operation.validate()?;
        let mut tries = 0;
        loop {
            bodies.put(self, session).await?;
            let done = self.client().execute(operation.clone()).await;
            tries += 1;
            let missing = match &done {
                Err(error) => is_missing_blob(error),
                Ok(_) => false,
            };
            if !missing || tries == TRIES || bodies.is_empty() {
                return done;
            }
            bodies.forget(self);
        }
    }

    /// The bytes of a content; none if a blob of it went meanwhile.
    pub(super) async fn bytes_of(
        &self,
        session: &SessionRef,
        content: &Content,
    ) -> Result<Option<Bytes>> {
        let bytes = self.client().session_content(session, content).await;
        bytes.map_err(|error| backend("reading blobs", &error))
    }

    /// The bytes of a row that was answered with: it was there, so its blobs were.
    pub(super) async fn body_of(&self, session: &SessionRef, content: &Content) -> Result<Bytes> {
        self.bytes_of(session, content).await?.ok_or_else(|| {
            StoreError::Backend(
                "what was just read was removed meanwhile; read it again".to_owned(),
            )
        })
    }
}
