//! Opening and deleting, notes, blobs and attachments.

use quorate_statemachine::limits::{REMOVAL_BYTES_MAX, REMOVALS_MAX};
use quorate_statemachine::session::{
    Attachment, AttachmentForgotten, AttachmentNoted, AttachmentsCommitted, BlobsPut, Collect,
    Collected, CommitAttachments, Delete, Deleted, ForgetAttachment, NoteAttachment, NotePut, Open,
    Opened, PutBlobs, PutNote, SessionId,
};
use quorate_statemachine::{Name, Subject, Timestamp};

use super::{Model, ModelBlob, ModelSession, Outcome, conflict};

impl Model {
    pub(super) fn open(&mut self, number: u64, open: &Open) -> Opened {
        let found = self.sessions.iter_mut().find(|s| s.name == open.name);
        if let Some(session) = found {
            if session.note.is_none() {
                session.note.clone_from(&open.note);
            }
            let (id, created) = (session.id, false);
            return Opened { id, created };
        }
        let id = SessionId(number);
        self.sessions.push(ModelSession {
            name: open.name.clone(),
            id,
            created_at: self.now,
            note: open.note.clone(),
            head: None,
            graphs: Vec::new(),
            leaving: Vec::new(),
            blobs: Vec::new(),
            usage: Vec::new(),
            turns: Vec::new(),
            work: Vec::new(),
            inputs: Vec::new(),
            attachments: Vec::new(),
        });
        Opened { id, created: true }
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Deleted {
        let at = self.sessions.iter().position(|s| s.name == delete.name);
        if let Some(at) = at {
            let session = self.sessions.remove(at);
            self.deleted.push(session.reference());
        }
        Deleted {
            existed: at.is_some(),
        }
    }

    pub(super) fn put_note(&mut self, put: &PutNote) -> Outcome<NotePut> {
        let at = self.require(&put.session)?;
        self.sessions[at].note = Some(put.note.clone());
        Ok(NotePut)
    }

    /// What is put is kept for its time from now on, whether it was there before or not.
    pub(super) fn put_blobs(&mut self, put: &PutBlobs) -> Outcome<BlobsPut> {
        let (at, now) = (self.require(&put.session)?, self.now);
        let session = &mut self.sessions[at];
        let mut stored = 0;
        for (hash, bytes) in &put.blobs {
            let known = session.blobs.iter_mut().find(|blob| blob.hash == *hash);
            match known {
                Some(blob) if blob.bytes == *bytes => {
                    blob.loose_since = blob.loose_since.map(|_| now);
                }
                Some(_) => return Err(conflict(Subject::Blob, hash.to_string())),
                None => {
                    session.blobs.push(ModelBlob {
                        hash: *hash,
                        bytes: bytes.clone(),
                        loose_since: Some(now),
                    });
                    stored += 1;
                }
            }
        }
        Ok(BlobsPut { stored })
    }

    pub(super) fn collect(&mut self, collect: &Collect) -> Outcome<Collected> {
        let at = self.require(&collect.session)?;
        let session = &mut self.sessions[at];
        let mut loose: Vec<_> = session.blobs.iter().map(|blob| blob.hash).collect();
        loose.retain(|hash| session.references(*hash) == 0);
        loose.sort();
        let (count, mut removed, mut bytes) = (loose.len(), 0, 0);
        for hash in loose.into_iter().take(REMOVALS_MAX) {
            bytes += session.blob(hash).map_or(0, |blob| blob.bytes.len());
            session.blobs.retain(|blob| blob.hash != hash);
            removed += 1;
            if bytes >= REMOVAL_BYTES_MAX {
                break;
            }
        }
        let left = count - removed;
        Ok(Collected {
            removed: removed as u64,
            retained: (session.blobs.len() - left) as u64,
            more: left > 0,
        })
    }

    pub(super) fn note_attachment(&mut self, note: &NoteAttachment) -> Outcome<AttachmentNoted> {
        let at = self.require(&note.session)?;
        let attachments = &mut self.sessions[at].attachments;
        let noted = attachments.iter().all(|known| known.id != note.id);
        if noted {
            attachments.push(Attachment {
                id: note.id.clone(),
                lane: note.lane.clone(),
                uri: note.uri.clone(),
                intent_at: note.intent_at,
                committed_at: None,
            });
        }
        Ok(AttachmentNoted { noted })
    }

    pub(super) fn commit_attachments(
        &mut self,
        commit: &CommitAttachments,
    ) -> Outcome<AttachmentsCommitted> {
        let at = self.require(&commit.session)?;
        let stamped = self.sessions[at].stamp(self.now, &commit.lane, &commit.ids);
        Ok(AttachmentsCommitted { stamped })
    }

    pub(super) fn forget_attachment(
        &mut self,
        forget: &ForgetAttachment,
    ) -> Outcome<AttachmentForgotten> {
        let at = self.require(&forget.session)?;
        let attachments = &mut self.sessions[at].attachments;
        let before = attachments.len();
        attachments.retain(|known| known.id != forget.id);
        let existed = attachments.len() < before;
        Ok(AttachmentForgotten { existed })
    }
}

impl ModelSession {
    /// Stamps attachments of a lane. How many were not stamped before.
    pub(super) fn stamp(&mut self, now: Timestamp, lane: &Name, ids: &[Name]) -> u64 {
        let mut stamped = 0;
        for attachment in &mut self.attachments {
            let named = ids.contains(&attachment.id) && attachment.lane == *lane;
            if named && attachment.committed_at.is_none() {
                attachment.committed_at = Some(now);
                stamped += 1;
            }
        }
        stamped
    }
}
