//! Who calls: what tells a call chain that re-enters a pack from others that should wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::ThreadId;

use quorate_client::statemachine::{InvalidArgument, Name, Owner};
use tokio::runtime::{Handle, RuntimeFlavor};

/// A [`call_chain`] that runs.
#[derive(Debug)]
struct Chain {
    number: u64,
}

tokio::task_local! {
    /// The chain that runs and those around it, innermost last.
    static CHAINS: Vec<Arc<Chain>>;
}

/// Runs `work` as one flow of control: it holds packs, and while it waits for one it releases none.
///
/// A pack that `work` holds is [`Busy`](crate::PackLockError::Busy) at once to all that it calls.
/// Chains side by side in one task, as the branches of a `join!`, wait for each other; what a chain
/// around this one holds is held by this one too. Chains that wait for each other's packs in a
/// circle are found out by the cluster, wherever they run. A task spawned by `work` is not part of
/// it.
pub async fn call_chain<F: Future>(work: F) -> F::Output {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut chains = CHAINS.try_with(Clone::clone).unwrap_or_default();
    chains.push(Arc::new(Chain {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
    }));
    CHAINS.scope(chains, work).await
}

/// The nearest thing to a flow of control that is known without being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Task(tokio::task::Id),
    Thread(ThreadId),
}

/// One call, as it is made.
#[derive(Debug)]
pub(crate) struct Caller {
    chains: Vec<Arc<Chain>>,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    flow: Flow,
    thread: ThreadId,
    /// Whether all tasks of the runtime run on this one thread.
    confined: bool,
}

/// The call that acquired what is held.
#[derive(Debug)]
pub(crate) struct Holder {
    chain: Option<Weak<Chain>>,
    place: Place,
}

/// Whether a call asks for what its own call chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reentry {
    No,
    /// It is of the same task or thread: the same chain, or another branch.
    Perhaps,
    Yes,
}

impl Caller {
    pub(crate) fn current() -> Self {
        let thread = std::thread::current().id();
        let runtime = Handle::try_current();
        Self {
            chains: CHAINS.try_with(Clone::clone).unwrap_or_default(),
            place: Place {
                flow: tokio::task::try_id().map_or(Flow::Thread(thread), Flow::Task),
                thread,
                confined: runtime
                    .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread),
            },
        }
    }

    pub(crate) fn as_holder(&self) -> Holder {
        Holder {
            chain: self.chains.last().map(Arc::downgrade),
            place: self.place,
        }
    }

    /// The owner that the cluster sees in a chain. Outside one every acquisition has its own, since
    /// nobody promised that it is one flow of control.
    pub(crate) fn owner(&self, owner_id: Option<&str>) -> Result<Option<Owner>, InvalidArgument> {
        let Some(chain) = self.chains.last() else {
            return Ok(None);
        };
        let process = quorate_client::incarnation();
        let owner_id = Name::parse("owner_id", owner_id.unwrap_or(process))?;
        let chain = Name::parse("incarnation_id", format!("{process}.{}", chain.number))?;
        Ok(Some(Owner::new(owner_id, chain)))
    }

    /// For a call that waits without blocking its thread.
    pub(crate) fn reenters(&self, holder: &Holder) -> Reentry {
        // A chain that is over has handed on what it held, to who knows whom.
        match holder.chain.as_ref().and_then(Weak::upgrade) {
            Some(chain) if self.chains.iter().any(|own| Arc::ptr_eq(own, &chain)) => Reentry::Yes,
            Some(_) => Reentry::No,
            None if self.place.flow == holder.place.flow => Reentry::Perhaps,
            None => Reentry::No,
        }
    }

    /// For a call that blocks its thread, and all that could run there.
    pub(crate) fn blocks(&self, holder: &Holder) -> bool {
        let (here, there) = (&self.place, &holder.place);
        here.flow == there.flow
            || (there.confined && here.thread == there.thread)
            || self.reenters(holder) == Reentry::Yes
    }
}
