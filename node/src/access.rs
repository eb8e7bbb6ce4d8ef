//! Who is at the door: from what a request shows of its caller to a principal, and what that may
//! read.
//!
//! A request shows a token in its metadata, or comes by a connection with a client certificate, or
//! shows nothing. Each port asks [`Guest::admit`] first. A stream lives long, so its [`Guest`] is
//! asked again with every request: it looks anew once rights have changed or its token is over.
//!
//! What a command may do is decided in `apply`, on every node alike. What a read may see is decided
//! here, on the state that answers it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::{Stream, stream};
use quorate_client::{WatchEvent, WatchWhat};
use quorate_rpc::NodeError;
use quorate_rpc::token::Bearer;
use quorate_statemachine::access::needs::{self, Need};
use quorate_statemachine::access::{self, Noun, Rights};
use quorate_statemachine::view::View;
use quorate_statemachine::{Name, Query, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior};
use tonic::Request;

use crate::core::Core;
use crate::origin::Caller;
use crate::propose::stopped;
use crate::server::caller::Caller as Connected;
use crate::server::refused;
use crate::storage::StateReader;

/// How long a node that does not know a caller asks the leader whether it is behind.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How often the caller of a watch is looked at while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long switching off may take until it is tried again, and the pause between.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);
const SWITCH_AGAIN: Duration = Duration::from_secs(1);

/// What a request shows of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    None,
    /// The name in the certificate of the connection.
    Certificate(Arc<str>),
    /// A token, by its id and the hash of its secret.
    Token {
        id: Name,
        hash: [u8; 32],
    },
    /// It is in the node's own process.
    Embedded(Caller),
}

/// A caller that was let in, for as long as its stream lasts. It keeps no store open.
pub struct Guest {
    proof: Proof,
    core: Weak<Core>,
    known: Mutex<Known>,
}

/// Who the caller was when it was looked at last.
struct Known {
    caller: Result<Caller, NodeError>,
    /// Log index of the last change of rights that was taken into account.
    changed_index: u64,
    /// When the token ends.
    until: Option<Timestamp>,
}

impl Proof {
    /// A token goes before a certificate: a host has a certificate, and what runs on it a token.
    fn of<T>(request: &Request<T>) -> Result<Self, NodeError> {
        let token = Bearer::of(request.metadata());
        if let Some(token) = token.map_err(|invalid| unauthenticated(&invalid.to_string()))? {
            return Ok(Self::of_token(&token));
        }
        let connected = request.extensions().get::<Connected>();
        // A connection of somebody without a good name was refused when it was made.
        let certified = connected.and_then(|connected| connected.principal().ok());
        Ok(match certified {
            Some(Caller::Named(name)) => Self::Certificate(name),
            Some(Caller::Anonymous | Caller::Cluster) | None => Self::None,
        })
    }

    fn of_token(token: &Bearer) -> Self {
        Self::Token {
            id: token.id().clone(),
            hash: token.hash(),
        }
    }
}

impl Guest {
    /// Lets the caller of a request in, or says why not. A user or a token that this node does not
    /// know may be newer than what it has applied: it asks the leader before it says no.
    pub async fn admit<T>(core: &Arc<Core>, request: &Request<T>) -> Result<Self, NodeError> {
        let admitted = match Proof::of(request) {
            Ok(proof) => Self::proved(core, proof).await,
            Err(error) => Err(error),
        };
        if let Err(error @ NodeError::Unauthenticated { .. }) = &admitted {
            let connected = request.extensions().get::<Connected>();
            let address = connected.and_then(|connected| connected.address);
            refused("clients", address, &error.to_string());
        }
        admitted
    }

    /// The same for a caller that shows a token or nothing.
    pub async fn showing(core: &Arc<Core>, token: Option<Bearer>) -> Result<Self, NodeError> {
        let proof = token.as_ref().map_or(Proof::None, Proof::of_token);
        Self::proved(core, proof).await
    }

    /// A caller in the node's own process, which needs no proof.
    pub fn embedded(core: &Arc<Core>, caller: Caller) -> Self {
        Self::new(core, Proof::Embedded(caller))
    }

    fn new(core: &Arc<Core>, proof: Proof) -> Self {
        Self {
            proof,
            core: Arc::downgrade(core),
            known: Mutex::new(Known {
                caller: Ok(Caller::Anonymous),
                changed_index: u64::MAX,
                until: None,
            }),
        }
    }

    async fn proved(core: &Arc<Core>, proof: Proof) -> Result<Self, NodeError> {
        let guest = Self::new(core, proof);
        if let Err(error) = guest.caller() {
            if guest.proof == Proof::None {
                return Err(error);
            }
            catch_up(core).await?;
            guest.forget();
            guest.caller()?;
        }
        Ok(guest)
    }

    /// Who it is, now.
    pub fn caller(&self) -> Result<Caller, NodeError> {
        let core = self.core.upgrade().ok_or_else(stopped)?;
        let (access, now) = core.state.access();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let over = known.until.is_some_and(|until| now >= until);
        if known.changed_index != access.changed_index || over {
            *known = self.look(&core.state);
        }
        known.caller.clone()
    }

    /// What was found out is looked at again.
    fn forget(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.changed_index = u64::MAX;
    }

    fn look(&self, state: &StateReader) -> Known {
        state.read(|view, _, now| {
            let (found, row) = (self.identify(view, now), access::of(view));
            let (caller, until) = match found {
                Ok((caller, until)) => (Ok(caller), until),
                Err(error) => (Err(error), None),
            };
            Known {
                caller,
                changed_index: row.map_or(u64::MAX, |row| row.changed_index),
                until,
            }
        })
    }

    fn identify(
        &self,
        view: &dyn View,
        now: Timestamp,
    ) -> Result<(Caller, Option<Timestamp>), NodeError> {
        let controlled = access::of(view).map_err(damaged)?.enabled;
        match &self.proof {
            Proof::None if controlled => Err(unauthenticated(
                "access is controlled, and this request shows neither a token nor a client \
                 certificate; give one (--token-file, --cert and --key)",
            )),
            Proof::None => Ok((Caller::Anonymous, None)),
            Proof::Embedded(caller) => Ok((caller.clone(), None)),
            Proof::Certificate(name) => {
                let user = access::user(view, name).map_err(damaged)?;
                let proved = user.map_or(!controlled, |user| user.certificate);
                match (proved, controlled) {
                    (true, _) => Ok((Caller::Named(Arc::clone(name)), None)),
                    (false, false) => Ok((Caller::Anonymous, None)),
                    (false, true) => Err(unauthenticated(&format!(
                        "the certificate is of {name}, and there is no user of this name that a \
                         certificate proves; an administrator can make it one: `quorate access \
                         user put {name} --certificate`"
                    ))),
                }
            }
            Proof::Token { id, hash } => {
                let token = access::authenticate(view, now, id, hash).map_err(damaged)?;
                let token = token.ok_or_else(|| {
                    unauthenticated(&format!(
                        "token {id} is proof of nothing: it was never made, is over, or was \
                         revoked; an administrator can make a new one: `quorate access token \
                         create USER`"
                    ))
                })?;
                let user = Caller::Named(token.user.as_str().into());
                Ok((user, token.expires_at))
            }
        }
    }
}

fn unauthenticated(message: &str) -> NodeError {
    NodeError::Unauthenticated {
        message: message.to_owned(),
    }
}

fn damaged(broken: quorate_statemachine::Broken) -> NodeError {
    NodeError::Stopped {
        message: broken.to_string(),
    }
}

/// Waits until this node has applied what the leader has committed. Without that it knows too
/// little to say that somebody is nobody.
async fn catch_up(core: &Core) -> Result<(), NodeError> {
    let caught_up = core.reads.catch_up(Instant::now() + CATCH_UP).await;
    caught_up.map_err(|cause| NodeError::Unavailable {
        message: format!(
            "this node does not know this caller, and cannot ask the leader whether it is behind: \
             {cause}"
        ),
        retry_after_ms: 100,
        leader: None,
    })
}

/// Whether a caller may do what is needed. A right that this node does not know may be newer than
/// what it has applied: it asks the leader before it says no.
pub async fn check_current(core: &Core, caller: &Caller, need: Need<'_>) -> Result<(), NodeError> {
    let checked = check(&core.state, caller, need);
    if matches!(checked, Err(NodeError::Refused(_))) && catch_up(core).await.is_ok() {
        return check(&core.state, caller, need);
    }
    checked
}

/// Whether a caller may do what is needed, by the state that this node has.
pub fn check(state: &StateReader, caller: &Caller, need: Need<'_>) -> Result<(), NodeError> {
    let rights = state.read(|view, _, _| Rights::in_view(view, caller.principal()));
    let checked = rights.map_err(damaged)?.check(need);
    checked.map_err(NodeError::Refused)
}

/// Whether a caller may read what a query asks for, in the view that answers it.
pub fn check_query(view: &dyn View, caller: &Caller, query: &Query) -> Result<(), NodeError> {
    if !access::of(view).map_err(damaged)?.enabled {
        return Ok(());
    }
    let rights = Rights::in_view(view, caller.principal()).map_err(damaged)?;
    rights.check_query(query).map_err(NodeError::Refused)
}

/// What must be allowed to begin a watch. The acquisitions of locks of one client may be of any
/// lock: only what each notice is about tells.
fn of_watch(what: &WatchWhat) -> Option<Need<'_>> {
    match what {
        WatchWhat::LeasePrefix(prefix) => Some(needs::look(Noun::Lease, prefix)),
        WatchWhat::Queue(queue) => Some(needs::look(Noun::Queue, queue.as_str())),
        WatchWhat::Process(id) => Some(needs::look(Noun::Process, id.as_str())),
        WatchWhat::ProcessPrefix(prefix) => Some(needs::look(Noun::Process, prefix)),
        WatchWhat::LockPrefix(prefix) => Some(needs::look(Noun::Lock, prefix)),
        WatchWhat::LockAcquisitions(_) => None,
    }
}

/// Switches access control off in the name of the cluster: whoever starts a node with this in its
/// configuration has all that the node has.
pub async fn switch_off(core: &Core) {
    tracing::warn!(
        "access control is switched off, as security.switch_access_off says; take that out of the \
         configuration"
    );
    loop {
        let deadline = Instant::now() + SWITCH_TIMEOUT;
        let off = core.execute_as(access::Disable {}, Caller::Cluster.into(), deadline);
        match off.await {
            Ok(was_on) => return tracing::warn!(was_on, "access control is off"),
            Err(error) if !error.is_passing() => {
                return tracing::warn!(%error, "access control cannot be switched off");
            }
            Err(error) => tracing::info!(%error, "access control is not off yet"),
        }
        tokio::time::sleep(SWITCH_AGAIN).await;
    }
}

/// A watch of one caller, who is looked at anew with every event and every so often: what it may
/// read no longer it is not told, and the watch ends with the reason.
pub struct Watching {
    core: Weak<Core>,
    guest: Guest,
    what: WatchWhat,
    events: mpsc::Receiver<WatchEvent>,
    looks: Interval,
}

impl Watching {
    /// Begins to watch, if the caller may.
    pub async fn start(
        core: &Arc<Core>,
        guest: Guest,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<Self, NodeError> {
        if let Some(need) = of_watch(&what) {
            check_current(core, &guest.caller()?, need).await?;
        }
        let events = core.watch(what.clone(), from_index)?;
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            core: Arc::downgrade(core),
            guest,
            what,
            events,
            looks,
        })
    }

    /// The next event, or why there are no more; none behind the last.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, NodeError>> {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => Some(event?),
                _ = self.looks.tick() => None,
            };
            match self.allowed(event) {
                Ok(Some(event)) => return Some(Ok(event)),
                // An entry of which nothing may be told is not told of.
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// All events; an error is the last.
    pub fn events(self) -> impl Stream<Item = Result<WatchEvent, NodeError>> + Send + 'static {
        stream::unfold(Some(self), |watching| async {
            let mut watching = watching?;
            let event = watching.next().await?;
            let goes_on = event.is_ok().then_some(watching);
            Some((event, goes_on))
        })
    }

    fn allowed(&self, event: Option<WatchEvent>) -> Result<Option<WatchEvent>, NodeError> {
        let core = self.core.upgrade().ok_or_else(stopped)?;
        let caller = self.guest.caller()?;
        if !core.state.access().0.enabled {
            return Ok(event);
        }
        let rights = core
            .state
            .read(|view, _, _| Rights::in_view(view, caller.principal()));
        let rights = rights.map_err(damaged)?;
        if let Some(need) = of_watch(&self.what) {
            rights.check(need).map_err(NodeError::Refused)?;
            return Ok(event);
        }
        let Some(WatchEvent::Notices { index, mut notices }) = event else {
            return Ok(event);
        };
        notices.retain(|notice| rights.check(needs::of_notice(notice)).is_ok());
        let told = !notices.is_empty();
        Ok(told.then_some(WatchEvent::Notices { index, notices }))
    }
}
