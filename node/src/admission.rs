//! Bounds what is in flight: commands beyond the limits are refused before they are proposed.
//!
//! A part of each bound is for upkeep alone ([`Lane`]), so that load cannot take grants from those
//! who hold them.
//!
//! Each principal has bounds of its own below those of the node, so that one that asks for too much
//! leaves room for the others. A node counts what it took from callers and what it was passed on by
//! other nodes, so the leader holds a principal to its bounds wherever it calls. Callers without a
//! name, and the node's own host, have the node's bounds only.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_rpc::NodeError;
use quorate_statemachine::Command;
use quorate_statemachine::access::EMBEDDED;

use crate::config::LimitsSection;
use crate::origin::Caller;

/// Commands in flight at one node, by default.
pub const COMMANDS_MAX: usize = 8_192;

/// Bytes of commands in flight at one node, by default.
pub const BYTES_MAX: usize = 64 << 20;

/// One part in so many of each bound is for upkeep alone.
const UPKEEP_PART: usize = 8;

const RETRY_AFTER_MS: u64 = 50;

/// Which part of the bounds something may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What may wait: all but an eighth.
    Growth,
    /// Renewals, releases, settlements, the cluster's own commands: all of it.
    Upkeep,
}

impl Lane {
    /// The lane of an encoded command.
    #[must_use]
    pub fn of(command: &[u8]) -> Self {
        match Command::is_upkeep(command) {
            true => Self::Upkeep,
            false => Self::Growth,
        }
    }

    fn share(self, limit: usize) -> usize {
        match self {
            Self::Growth => limit - limit / UPKEEP_PART,
            Self::Upkeep => limit,
        }
    }
}

/// How much is, or may be, in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Commands.
    pub commands: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Counts what is in flight.
pub struct Admission {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    node: Bounds,
    principal: Bounds,
    by_principal: Mutex<HashMap<Arc<str>, Bounds>>,
}

/// A place in flight; gives it back when dropped.
pub struct Permit {
    admission: Arc<Admission>,
    principal: Option<Arc<str>>,
    bytes: usize,
}

impl Admission {
    /// Nothing in flight.
    #[must_use]
    pub fn new(node: Bounds, principal: Bounds) -> Arc<Self> {
        Arc::new(Self {
            commands: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            node,
            principal,
            by_principal: Mutex::default(),
        })
    }

    /// Takes a place for something of `bytes`.
    pub fn admit(
        self: &Arc<Self>,
        lane: Lane,
        caller: &Caller,
        bytes: usize,
    ) -> Result<Permit, NodeError> {
        let principal = match caller {
            Caller::Named(name) if !name.starts_with(EMBEDDED) => Some(Arc::clone(name)),
            Caller::Named(_) | Caller::Anonymous | Caller::Cluster => None,
        };
        // From here on the permit gives back what was counted, whatever is refused.
        let permit = Permit {
            admission: Arc::clone(self),
            principal,
            bytes,
        };
        let all = Bounds {
            commands: self.commands.fetch_add(1, Ordering::Relaxed) + 1,
            bytes: self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes,
        };
        if let Some(name) = &permit.principal {
            let own = self.add_own(name, bytes);
            check(lane, own, self.principal, format_args!("of {name}"))?;
        }
        check(lane, all, self.node, format_args!("at this node"))?;
        Ok(permit)
    }

    fn by_principal(&self) -> MutexGuard<'_, HashMap<Arc<str>, Bounds>> {
        // Nothing panics while it changes the map.
        let locked = self.by_principal.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn add_own(&self, name: &Arc<str>, bytes: usize) -> Bounds {
        let mut by_principal = self.by_principal();
        let own = by_principal.entry(Arc::clone(name)).or_default();
        own.commands += 1;
        own.bytes += bytes;
        *own
    }

    /// Commands in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.commands.fetch_sub(1, Ordering::Relaxed);
        admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let Some(name) = &self.principal else {
            return;
        };
        let mut by_principal = admission.by_principal();
        if let Some(own) = by_principal.get_mut(name) {
            own.commands -= 1;
            own.bytes -= self.bytes;
            if own.commands == 0 {
                by_principal.remove(name);
            }
        }
    }
}

fn check(
    lane: Lane,
    taken: Bounds,
    bounds: Bounds,
    whose: fmt::Arguments<'_>,
) -> Result<(), NodeError> {
    let commands = lane.share(bounds.commands);
    if taken.commands > commands {
        let (limit, actual) = (commands.to_string(), taken.commands.to_string());
        return Err(over(format!("commands in flight {whose}"), limit, actual));
    }
    let bytes = lane.share(bounds.bytes);
    if taken.bytes > bytes {
        let (limit, actual) = (format!("{bytes} bytes"), format!("{} bytes", taken.bytes));
        return Err(over(format!("bytes in flight {whose}"), limit, actual));
    }
    Ok(())
}

fn over(what: String, limit: String, actual: String) -> NodeError {
    NodeError::Overloaded {
        what,
        limit,
        actual,
        retry_after_ms: RETRY_AFTER_MS,
    }
}

/// A bound of this node is reached.
pub(crate) fn overloaded(what: &str, limit: String, actual: String) -> NodeError {
    over(format!("{what} at this node"), limit, actual)
}

impl LimitsSection {
    pub(crate) fn of_node(&self) -> Bounds {
        Bounds {
            commands: self.commands_in_flight,
            bytes: self.bytes_in_flight,
        }
    }

    pub(crate) fn of_principal(&self) -> Bounds {
        let bound = |own, all| if own == 0 { all } else { own };
        Bounds {
            commands: bound(
                self.commands_in_flight_per_principal,
                self.commands_in_flight,
            ),
            bytes: bound(self.bytes_in_flight_per_principal, self.bytes_in_flight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(node: (usize, usize), principal: (usize, usize)) -> Arc<Admission> {
        let bounds = |(commands, bytes)| Bounds { commands, bytes };
        Admission::new(bounds(node), bounds(principal))
    }

    fn named(name: &str) -> Caller {
        Caller::Named(name.into())
    }

    fn refused(admission: &Arc<Admission>, caller: &Caller, bytes: usize) -> String {
        let refused = admission.admit(Lane::Upkeep, caller, bytes).err();
        refused.expect("over a bound").to_string()
    }

    #[test]
    fn beyond_the_limits_is_refused_and_a_place_comes_back() {
        let (admission, caller) = (admission((2, 100), (2, 100)), Caller::Anonymous);
        let admit = |bytes| admission.admit(Lane::Upkeep, &caller, bytes);
        let first = admit(60).expect("within both limits");
        let error = refused(&admission, &caller, 60);
        assert!(
            error.contains("bytes in flight at this node: limit 100 bytes, actual 120 bytes"),
            "{error}"
        );
        let _second = admit(10).expect("within both limits");
        refused(&admission, &caller, 1);
        drop(first);
        assert!(admit(60).is_ok());
        assert_eq!(admission.in_flight(), 1);
    }

    #[test]
    fn a_principal_that_asks_for_too_much_leaves_room_for_others() {
        let (admission, ci, ann) = (admission((9, 900), (2, 100)), named("ci"), named("ann"));
        let admit = |caller: &Caller, bytes| admission.admit(Lane::Upkeep, caller, bytes);
        let first = admit(&ci, 60).expect("within its bounds");
        let error = refused(&admission, &ci, 60);
        assert!(
            error.contains("bytes in flight of ci: limit 100 bytes, actual 120 bytes"),
            "{error}"
        );
        let second = admit(&ci, 1).expect("within its bounds");
        let error = refused(&admission, &ci, 1);
        assert!(
            error.contains("commands in flight of ci: limit 2, actual 3"),
            "{error}"
        );
        let _other = admit(&ann, 100).expect("another one");
        let own_host = Caller::embedded("n1");
        let own_host: Vec<_> = (0..3).map(|_| admit(&own_host, 100)).collect();
        assert!(own_host.iter().all(Result::is_ok));
        drop((first, second));
        assert!(admit(&ci, 100).is_ok());
        assert_eq!(admission.by_principal().len(), 1, "only ann is counted");
    }

    #[test]
    fn growth_leaves_an_eighth_to_upkeep() {
        for (node, caller) in [
            ((16, 1 << 20), Caller::Anonymous),
            ((99, 1 << 20), named("ci")),
        ] {
            let admission = admission(node, (16, 1 << 20));
            let admit = |lane| admission.admit(lane, &caller, 1);
            let held: Vec<_> = std::iter::from_fn(|| admit(Lane::Growth).ok()).collect();
            assert_eq!(held.len(), 14);
            let kept: Vec<_> = std::iter::from_fn(|| admit(Lane::Upkeep).ok()).collect();
            assert_eq!(kept.len(), 2);
        }
        let (by_bytes, caller) = (admission((16, 80), (16, 80)), Caller::Anonymous);
        let admit = |lane, bytes| by_bytes.admit(lane, &caller, bytes);
        let _held = admit(Lane::Growth, 70).expect("seven eighths");
        let error = admit(Lane::Growth, 1).err().expect("full");
        assert!(error.to_string().contains("limit 70 bytes"), "{error}");
        assert!(admit(Lane::Upkeep, 10).is_ok());
    }

    #[test]
    fn the_lane_is_that_of_the_tag() {
        use quorate_statemachine::lease::Revoke;
        use quorate_statemachine::queue::{Cancel, ItemId, Requeue};
        use quorate_statemachine::{Action, Name, cluster::Tick};
        let name = || Name::parse("name", "a").expect("short");
        let (queue, item_id) = (name(), ItemId(1));
        let revoke = Revoke {
            key: name(),
            only: None,
            by: String::new(),
        };
        let cancel = Cancel {
            queue: queue.clone(),
            item_id,
        };
        let requeue = Requeue { queue, item_id };
        let upkeep: [Action; 3] = [revoke.into(), cancel.clone().into(), Tick {}.into()];
        for action in upkeep {
            assert_eq!(Lane::of(&Command::from(action).encode()), Lane::Upkeep);
        }
        let composite = Action::Composite(vec![cancel.into()]);
        for action in [requeue.into(), composite] {
            assert_eq!(Lane::of(&Command::from(action).encode()), Lane::Growth);
        }
        assert_eq!(Lane::of(b"x"), Lane::Growth);
    }
}
