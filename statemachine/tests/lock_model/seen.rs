//! What random turns have met: they would show nothing if they met nothing.

use std::collections::BTreeSet;

use quorate_statemachine::lock::{self, Acquired, Kept, Released, WaitCancelled};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{Action, Applied, Command, Refusal, Response};

/// Words for what was met.
#[derive(Debug, Default)]
pub struct Seen(pub BTreeSet<String>);

/// What there is to meet.
pub const ALL: &[&str] = &[
    "busy",
    "busy with a delay",
    "cancelled",
    "cancelled by a release",
    "composite conflict",
    "granted",
    "granted at once",
    "handed over",
    "kept a hold",
    "kept a wait",
    "left cancelled",
    "left deadlock",
    "left expired",
    "left gave_up",
    "left released",
    "left revoked",
    "left waiter_died",
    "lock.acquire conflict",
    "lock.acquire expired",
    "lock.acquire fenced",
    "lock.acquire outcome_unknown",
    "lock.proclaim fenced",
    "lock.release conflict",
    "lock.release fenced",
    "lock.renew conflict",
    "lock.renew expired",
    "lock.renew fenced",
    "lock.renew not_found",
    "lock.revoke not_found",
    "many revoked",
    "not cancelled",
    "not cancelled, over",
    "not held, deadlock",
    "not held, expired",
    "not held, revoked",
    "not held, waiter_died",
    "over, cancelled",
    "over, deadlock",
    "over, expired",
    "over, gave_up",
    "over, released",
    "over, revoked",
    "over, waiter_died",
    "proclaimed",
    "released",
    "waits",
];

impl Seen {
    /// Looks at an entry.
    pub fn look(&mut self, command: &Command, applied: &Applied) {
        let asked = match &command.action {
            Action::Lock(lock::Command::Acquire(acquire)) => Some(acquire.id.id),
            _ => None,
        };
        for notice in &applied.notices {
            match notice {
                Notice::LockGranted { id, .. } if asked != Some(*id) => self.add("handed over"),
                Notice::LockGranted { .. } => self.add("granted at once"),
                Notice::LockLeft { end, .. } => self.add(&format!("left {}", end.as_str())),
                _ => {}
            }
        }
        match &applied.reply.0 {
            Ok(Response::Lock(response)) => self.response(response),
            Ok(_) => {}
            Err(refusal) => self.refusal(command, refusal),
        }
    }

    fn add(&mut self, words: &str) {
        self.0.insert(words.to_owned());
    }

    fn refusal(&mut self, command: &Command, refusal: &Refusal) {
        let name = command.action.name();
        self.add(&format!("{name} {}", refusal.code()));
    }

    fn response(&mut self, response: &lock::Response) {
        match response {
            lock::Response::Acquire(acquired) => self.acquired(acquired),
            lock::Response::Renew(Kept::Waiting { .. }) => self.add("kept a wait"),
            lock::Response::Renew(Kept::Holding { .. }) => self.add("kept a hold"),
            lock::Response::Release(Released::Released { .. }) => self.add("released"),
            lock::Response::Release(Released::Cancelled) => self.add("cancelled by a release"),
            lock::Response::Release(Released::NotHeld { end }) => {
                self.add(&format!("not held, {}", end.as_str()));
            }
            lock::Response::CancelWait(WaitCancelled::Cancelled) => self.add("cancelled"),
            lock::Response::CancelWait(WaitCancelled::Holding(_)) => self.add("not cancelled"),
            lock::Response::CancelWait(WaitCancelled::Over(_)) => self.add("not cancelled, over"),
            lock::Response::Revoke(members) if members.len() > 1 => self.add("many revoked"),
            lock::Response::Proclaim(_) => self.add("proclaimed"),
            _ => {}
        }
    }

    fn acquired(&mut self, acquired: &Acquired) {
        match acquired {
            Acquired::Granted(_) => self.add("granted"),
            Acquired::Waiting(_) => self.add("waits"),
            Acquired::Busy(holders) if holders.is_empty() => self.add("busy with a delay"),
            Acquired::Busy(_) => self.add("busy"),
            Acquired::Over(end) => self.add(&format!("over, {}", end.as_str())),
        }
    }
}
