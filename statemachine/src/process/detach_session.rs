//! Detach a session: take it out of all processes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::require;
use super::session::{remove_grant, remove_wake_target};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::tables::{
    GrantsBySession, Key, Table, WakeTargets, grant_key, grant_names, grants_of_process,
    grants_of_session, wake_target_of, wake_targets_of,
};
use crate::transaction::Transaction;

/// Deletes all grants of a session's scopes, and makes no process wake it any more.
///
/// Promises that nothing names the session when it answers. No process ends by it, no event is
/// lost, and a wake that is pending stays pending. It never refuses; a retry finds nothing left
/// and answers with zeros, so give it a request id if the report matters. Bounded by the limits of
/// grants and wake targets of one session. Watchers get `ProcessChanged` of each process that woke
/// the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachSession {
    /// The session.
    pub session: Name,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDetached {
    /// Grants that were deleted.
    pub revoked: u64,
    /// Running processes that lost a grant and have none left, in id order.
    pub orphaned: Vec<Name>,
    /// Running processes that lost a grant and have another one, in id order.
    pub preserved: Vec<Name>,
    /// Processes that wake the session no longer.
    pub wake_targets: u64,
}

impl Validate for DetachSession {
    fn validate(&self) -> Result<(), InvalidArgument> {
        Ok(())
    }
}

impl DetachSession {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<SessionDetached, Failure> {
        let (revoked, processes) = self.delete_grants(tx)?;
        let (mut orphaned, mut preserved) = (Vec::new(), Vec::new());
        for id in processes {
            if require(tx, &id)?.state.is_ended() {
                continue;
            }
            if has_grants(tx, &id)? {
                preserved.push(id);
            } else {
                orphaned.push(id);
            }
        }
        Ok(SessionDetached {
            revoked,
            orphaned,
            preserved,
            wake_targets: self.clear_wake_targets(tx, ctx)?,
        })
    }

    /// How many there were, and of which processes.
    fn delete_grants(&self, tx: &mut Transaction<'_>) -> Result<(u64, BTreeSet<Name>), Failure> {
        let (from, to) = grants_of_session(&self.session);
        let keys = keys::<GrantsBySession, _>(tx, (&from, &to), grant_names)?;
        let mut processes = BTreeSet::new();
        let revoked = keys.len() as u64;
        for (scope, process_id) in keys {
            let Some(grant) = tx.get(&grant_key(&scope, &process_id))? else {
                let session = &self.session;
                return Err(Broken(format!(
                    "grant {scope}/{process_id} of session {session} is indexed and has no row"
                ))
                .into());
            };
            remove_grant(tx, &grant)?;
            processes.insert(process_id);
        }
        Ok((revoked, processes))
    }

    fn clear_wake_targets(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<u64, Failure> {
        let (from, to) = wake_targets_of(&self.session);
        let processes = keys::<WakeTargets, _>(tx, (&from, &to), wake_target_of)?;
        for id in &processes {
            let mut process = require(tx, id)?;
            remove_wake_target(tx, id, &self.session)?;
            process.wake_target = None;
            process.store_changed(tx, ctx)?;
        }
        Ok(processes.len() as u64)
    }
}

/// What the keys of an index say.
fn keys<T: Table, K>(
    tx: &Transaction<'_>,
    (from, to): (&Key<T>, &Key<T>),
    parse: impl Fn(&[u8]) -> Result<K, Broken>,
) -> Result<Vec<K>, Broken> {
    let (mut parsed, mut broken) = (Vec::new(), None);
    tx.scan(from, to, &mut |key, _| match parse(key) {
        Ok(key) => {
            parsed.push(key);
            ControlFlow::Continue(())
        }
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    })?;
    broken.map_or(Ok(parsed), Err)
}

fn has_grants(tx: &Transaction<'_>, process: &Name) -> Result<bool, Broken> {
    let (from, to) = grants_of_process(process);
    let mut found = false;
    tx.scan(&from, &to, &mut |_, ()| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}
