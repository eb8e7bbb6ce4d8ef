//! Bounds what is in flight: commands beyond the limits are refused before they are proposed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_rpc::NodeError;

/// Commands in flight at one node, by default.
pub const COMMANDS_MAX: usize = 8_192;

/// Bytes of commands in flight at one node, by default.
pub const BYTES_MAX: usize = 64 << 20;

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

    /// Takes a place for a command of `bytes`.
    pub fn admit(self: &Arc<Self>, bytes: usize) -> Result<Permit, NodeError> {
        let commands = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let permit = Permit {
            admission: Arc::clone(self),
            bytes,
        };
        if commands > self.commands_max {
            let limit = self.commands_max.to_string();
            return Err(overloaded(
                "commands in flight",
                limit,
                commands.to_string(),
            ));
        }
        if total > self.bytes_max {
            let limit = format!("{} bytes", self.bytes_max);
            return Err(overloaded(
                "bytes in flight",
                limit,
                format!("{total} bytes"),
            ));
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

fn overloaded(what: &str, limit: String, actual: String) -> NodeError {
    NodeError::Overloaded {
        what: format!("{what} at this node"),
        limit,
        actual,
        retry_after_ms: 50,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limits_is_refused_and_a_place_comes_back() {
        let admission = Admission::new(2, 100);
        let first = admission.admit(60).expect("within both limits");
        let error = admission.admit(60).err().expect("too many bytes");
        assert!(
            error
                .to_string()
                .contains("limit 100 bytes, actual 120 bytes"),
            "{error}"
        );
        let _second = admission.admit(10).expect("within both limits");
        assert!(admission.admit(1).is_err(), "too many commands");
        drop(first);
        assert!(admission.admit(60).is_ok());
        assert_eq!(admission.in_flight(), 1);
    }
}
