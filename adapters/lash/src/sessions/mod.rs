//! lash-core's session stores: `RuntimePersistence`, `AttachmentManifest` and their factory.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_client::engine::Engine;
use quorate_client::{Client, ClientError};
use quorate_statemachine::Name;
use quorate_statemachine::session::{Get, Open, SessionRef, SessionView};
use tokio::sync::OnceCell;

use crate::builder::{Builder, FencingTokens, Parts};
use crate::names::Names;
use error::{Result, backend, invalid};
use known::Known;

mod bodies;
mod checkpoint;
mod claims;
mod commit;
mod error;
mod factory;
mod graph;
mod inputs;
mod known;
mod lease;
mod load;
mod manifest;
mod persistence;
mod work;

/// lash's session stores on a cluster, one a session. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct QuorateSessions {
    shared: Arc<Shared>,
}

/// One session store: lash-core's `RuntimePersistence`. Cheap to clone; clones share everything.
///
/// Any number of handles, on any hosts, may be open on one session; its execution lease says which
/// of them may commit.
#[derive(Clone)]
pub struct QuorateSession {
    inner: Arc<Inner>,
}

struct Shared {
    client: Client,
    blocking: Client,
    names: Names,
    tokens: FencingTokens,
    /// Started by the first call that blocks its thread.
    engine: Mutex<Option<Arc<Engine>>>,
}

struct Inner {
    shared: Arc<Shared>,
    /// What the cluster calls it.
    name: Name,
    /// Which one of that name, once it is known.
    opened: OnceCell<SessionRef>,
    /// What is known of it without asking.
    known: Mutex<Known>,
}

impl QuorateSessions {
    /// Session stores on the cluster that answers at `endpoints` (`host:port`); one is enough.
    pub fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder<Self> {
        Builder::connect(endpoints)
    }

    /// Session stores over a client, of an embedded node for example.
    ///
    /// The attachment manifest's methods block their thread. On a runtime of one thread they are
    /// answered only if the client needs nothing of that runtime: as one of a node that was started
    /// with threads of its own.
    pub fn over(client: Client) -> Builder<Self> {
        Builder::over(client)
    }

    /// The client that carries the calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The store of a session; made by the first call that writes to it. Refuses an id that makes
    /// no name.
    pub fn session(&self, session_id: &str) -> Result<QuorateSession> {
        let name = self.shared.names.store(session_id).map_err(invalid)?;
        let inner = Inner {
            shared: Arc::clone(&self.shared),
            name,
            opened: OnceCell::new(),
            known: Mutex::new(Known::default()),
        };
        Ok(QuorateSession {
            inner: Arc::new(inner),
        })
    }
}

impl Builder<QuorateSessions> {
    /// Refuses an endpoint or a namespace that is none.
    pub fn build(self) -> std::result::Result<QuorateSessions, ClientError> {
        let Parts {
            client,
            blocking,
            names,
            tokens,
        } = self.parts()?;
        let shared = Shared {
            client,
            blocking,
            names,
            tokens,
            engine: Mutex::new(None),
        };
        Ok(QuorateSessions {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    fn engine(&self) -> std::io::Result<Arc<Engine>> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        let started = Arc::new(Engine::start("quorate-lash")?);
        Ok(Arc::clone(engine.insert(started)))
    }
}

impl QuorateSession {
    fn client(&self) -> &Client {
        &self.inner.shared.client
    }

    /// What the cluster calls this session (`NAMESPACE/SESSION`), for the command line.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// The session, made if there is none.
    async fn opened(&self) -> Result<&SessionRef> {
        self.opened_by(self.client()).await
    }

    async fn opened_by(&self, client: &Client) -> Result<&SessionRef> {
        let open = async || {
            let name = self.inner.name.clone();
            let open = Open { name, note: None };
            let opened = client.execute(open).await;
            let opened = opened.map_err(|error| backend("opening the session", &error))?;
            Ok(self.reference(opened.id))
        };
        self.inner.opened.get_or_try_init(open).await
    }

    fn reference(&self, id: quorate_statemachine::session::SessionId) -> SessionRef {
        SessionRef {
            name: self.inner.name.clone(),
            id,
        }
    }

    /// The session as it is; none if it was never opened, or was deleted.
    async fn view(&self) -> Result<Option<SessionView>> {
        self.view_by(self.client()).await
    }

    async fn view_by(&self, client: &Client) -> Result<Option<SessionView>> {
        let name = self.inner.name.clone();
        let view = client.session_get(Get { name }).await;
        let view = view.map_err(|error| backend("reading the session", &error))?;
        let Some(view) = view else {
            return Ok(None);
        };
        let reference = self.reference(view.session.id);
        let opened = async || reference.clone();
        let known = self.inner.opened.get_or_init(opened).await;
        // A session of the same name that was made after this one was deleted is another one.
        Ok((*known == reference).then_some(view))
    }

    /// The session if there is one; reading makes none.
    async fn found(&self) -> Result<Option<&SessionRef>> {
        self.found_by(self.client()).await
    }

    async fn found_by(&self, client: &Client) -> Result<Option<&SessionRef>> {
        if self.inner.opened.get().is_none() {
            self.view_by(client).await?;
        }
        Ok(self.inner.opened.get())
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self
            .inner
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(&mut known)
    }
}
