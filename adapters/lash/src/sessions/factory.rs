//! lash's factory of session stores: a session of the cluster for each of lash's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lash_core::runtime::{SessionStoreCreateRequest, SessionStoreFactory};
use lash_core::{DurabilityTier, RuntimePersistence, SessionMeta};
use quorate_statemachine::session::{Delete, Open};

use super::bodies::to_bytes;
use super::{QuorateSession, QuorateSessions};

#[async_trait::async_trait]
impl SessionStoreFactory for QuorateSessions {
    /// An answer to a write means that a majority of the nodes has it on disk.
    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }

    async fn create_store(
        &self,
        request: &SessionStoreCreateRequest,
    ) -> Result<Arc<dyn RuntimePersistence>, String> {
        let store = self
            .session(&request.session_id)
            .map_err(|error| error.to_string())?;
        let note = to_bytes("session metadata", &first_meta(request));
        let open = Open {
            name: store.name().clone(),
            note: Some(Bytes::from(note.map_err(|error| error.to_string())?)),
        };
        let opened = self.client().execute(open).await;
        let opened = opened.map_err(|error| error.to_string())?;
        store.opened_as(opened.id);
        Ok(Arc::new(store))
    }

    async fn open_existing_store(
        &self,
        request: &SessionStoreCreateRequest,
    ) -> Result<Option<Arc<dyn RuntimePersistence>>, String> {
        let store = self
            .session(&request.session_id)
            .map_err(|error| error.to_string())?;
        let found = store.found().await.map_err(|error| error.to_string())?;
        let exists = found.is_some();
        Ok(exists.then(|| Arc::new(store) as Arc<dyn RuntimePersistence>))
    }

    async fn delete_session(&self, session_id: &str) -> Result<(), String> {
        let store = self
            .session(session_id)
            .map_err(|error| error.to_string())?;
        let delete = Delete {
            name: store.name().clone(),
        };
        let deleted = self.client().execute(delete).await;
        deleted.map(drop).map_err(|error| error.to_string())
    }
}

impl QuorateSession {
    /// What the session was opened as, so that it need not be opened again.
    fn opened_as(&self, id: quorate_statemachine::session::SessionId) {
        // It was made by the caller, who has given it to nobody yet.
        let _ = self.inner.opened.set(self.reference(id));
    }
}

/// The metadata of a session that has none yet.
fn first_meta(request: &SessionStoreCreateRequest) -> SessionMeta {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let cwd = std::env::current_dir().ok();
    SessionMeta {
        session_id: request.session_id.clone(),
        session_name: request.session_id.clone(),
        created_at: format!("unix:{}", now.unwrap_or_default().as_secs()),
        model: request.policy.model.id.clone(),
        cwd: cwd.and_then(|path| path.to_str().map(str::to_owned)),
        relation: request.relation.clone(),
    }
}
