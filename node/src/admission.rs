//! Bounds what is in flight: commands beyond the limits are refused before they are proposed.
//!
//! A part of each bound is for upkeep alone ([`Lane`]), so that load cannot take grants from those
//! who hold them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_rpc::NodeError;
use quorate_statemachine::Command;

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

/// Counts what is in flight.
pub struct Admission {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    commands_max: usize,
    bytes_max: usize,
}

/// A place in flight; gives it back when dropped.
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Nothing in flight.
    #[must_use]
    pub fn new(commands_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            commands: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            commands_max,
            bytes_max,
        })
    }

    /// Takes a place for something of `bytes`.
    pub fn admit(self: &Arc<Self>, lane: Lane, bytes: usize) -> Result<Permit, NodeError> {
        let commands = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let permit = Permit {
            admission: Arc::clone(self),
            bytes,
        };
        let commands_max = lane.share(self.commands_max);
        if commands > commands_max {
            let (limit, actual) = (commands_max.to_string(), commands.to_string());
            return Err(overloaded("commands in flight", limit, actual));
        }
        let bytes_max = lane.share(self.bytes_max);
        if total > bytes_max {
            let (limit, actual) = (format!("{bytes_max} bytes"), format!("{total} bytes"));
            return Err(overloaded("bytes in flight", limit, actual));
        }
        Ok(permit)
    }

    /// Commands in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.commands.fetch_sub(1, Ordering::Relaxed);
        self.admission
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A bound of this node is reached.
pub(crate) fn overloaded(what: &str, limit: String, actual: String) -> NodeError {
    NodeError::Overloaded {
        what: format!("{what} at this node"),
        limit,
        actual,
        retry_after_ms: RETRY_AFTER_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limits_is_refused_and_a_place_comes_back() {
        let admission = Admission::new(2, 100);
        let first = admission
            .admit(Lane::Upkeep, 60)
            .expect("within both limits");
        let error = admission
            .admit(Lane::Upkeep, 60)
            .err()
            .expect("too many bytes");
        assert!(
            error
                .to_string()
                .contains("limit 100 bytes, actual 120 bytes"),
            "{error}"
        );
        let _second = admission
            .admit(Lane::Upkeep, 10)
            .expect("within both limits");
        assert!(
            admission.admit(Lane::Upkeep, 1).is_err(),
            "too many commands"
        );
        drop(first);
        assert!(admission.admit(Lane::Upkeep, 60).is_ok());
        assert_eq!(admission.in_flight(), 1);
    }

    #[test]
    fn growth_leaves_an_eighth_to_upkeep() {
        let admission = Admission::new(16, 1 << 20);
        let admit = |lane| admission.admit(lane, 1);
        let held: Vec<_> = std::iter::from_fn(|| admit(Lane::Growth).ok()).collect();
        assert_eq!(held.len(), 14);
        let kept: Vec<_> = std::iter::from_fn(|| admit(Lane::Upkeep).ok()).collect();
        assert_eq!(kept.len(), 2);
        let by_bytes = Admission::new(16, 80);
        let _held = by_bytes.admit(Lane::Growth, 70).expect("seven eighths");
        let error = by_bytes.admit(Lane::Growth, 1).err().expect("full");
        assert!(error.to_string().contains("limit 70 bytes"), "{error}");
        assert!(by_bytes.admit(Lane::Upkeep, 10).is_ok());
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
