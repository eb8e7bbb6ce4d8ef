//! lash's attachment manifest: synchronous, and called from wherever an attachment is written.
//!
//! The calls block their thread and are answered by a thread of the adapter's own.

use lash_core::{
    AttachmentId, AttachmentIntent, AttachmentManifest, AttachmentManifestEntry, StoreError,
};
use quorate_client::Client;
use quorate_statemachine::Timestamp;
use quorate_statemachine::limits::SESSION_BATCH_MAX;
use quorate_statemachine::session::{
    Attachment, Attachments, CommitAttachments, ForgetAttachment, NoteAttachment,
};

use super::QuorateSession;
use super::error::{Result, backend, name};

impl QuorateSession {
    /// Does `work` on the adapter's thread, with a client that needs nothing of the caller's
    /// runtime.
    fn blocking<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Self, Client) -> F,
    ) -> Result<T> {
        let engine = self.inner.shared.engine();
        let engine = engine.map_err(|error| {
            StoreError::Backend(format!("the adapter's thread did not start: {error}"))
        })?;
        let client = self.inner.shared.blocking.clone();
        let done = engine.run(work(self.clone(), client));
        done.map_err(|_| StoreError::Backend("a call ended without an answer".to_owned()))?
    }
}

impl AttachmentManifest for QuorateSession {
    fn record_intent(&self, intent: AttachmentIntent) -> Result<()> {
        self.blocking(async move |store, client| {
            let session = store.opened_by(&client).await?;
            let note = NoteAttachment {
                session: session.clone(),
                id: name("attachment id", intent.attachment_id.as_str())?,
                lane: name("session id", &intent.session_id)?,
                uri: intent.canonical_uri,
                intent_at: Timestamp(intent.intent_at_epoch_ms),
            };
            let noted = client.execute(note).await;
            noted
                .map(drop)
                .map_err(|error| backend("recording an attachment", &error))
        })
    }

    fn commit_refs(&self, session_id: &str, attachment_ids: &[AttachmentId]) -> Result<()> {
        let lane = name("session id", session_id)?;
        let ids = attachment_ids.iter();
        let ids = ids.map(|id| name("attachment id", id.as_str()));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        self.blocking(async move |store, client| {
            let session = store.opened_by(&client).await?;
            for ids in ids.chunks(SESSION_BATCH_MAX) {
                let commit = CommitAttachments {
                    session: session.clone(),
                    lane: lane.clone(),
                    ids: ids.to_vec(),
                };
                let committed = client.execute(commit).await;
                committed.map_err(|error| backend("committing attachments", &error))?;
            }
            Ok(())
        })
    }

    fn list_uncommitted(&self, older_than_epoch_ms: u64) -> Result<Vec<AttachmentManifestEntry>> {
        self.blocking(async move |store, client| {
            let (mut entries, mut after) = (Vec::new(), None);
            let Some(session) = store.found_by(&client).await? else {
                return Ok(entries);
            };
            loop {
                let asked = Attachments {
                    session: session.clone(),
                    until: Timestamp(older_than_epoch_ms),
                    after,
                    limit: 0,
                };
                let page = client.session_attachments(asked).await;
                let page = page.map_err(|error| backend("reading attachments", &error))?;
                let Some(page) = page else {
                    return Ok(entries);
                };
                entries.extend(page.rows.iter().map(entry));
                after = match (page.next, page.rows.into_iter().next_back()) {
                    (Some(_), Some(last)) => Some((last.intent_at, last.id)),
                    _ => return Ok(entries),
                };
            }
        })
    }

    fn forget(&self, attachment_id: &AttachmentId) -> Result<()> {
        let id = name("attachment id", attachment_id.as_str())?;
        self.blocking(async move |store, client| {
            let Some(session) = store.found_by(&client).await? else {
                return Ok(());
            };
            let forget = ForgetAttachment {
                session: session.clone(),
                id,
            };
            let forgotten = client.execute(forget).await;
            forgotten
                .map(drop)
                .map_err(|error| backend("forgetting an attachment", &error))
        })
    }
}

fn entry(attachment: &Attachment) -> AttachmentManifestEntry {
    AttachmentManifestEntry {
        attachment_id: AttachmentId::new(attachment.id.to_string()),
        session_id: attachment.lane.to_string(),
        canonical_uri: attachment.uri.clone(),
        intent_at_epoch_ms: attachment.intent_at.0,
        committed_at_epoch_ms: attachment.committed_at.map(|at| at.0),
    }
}
