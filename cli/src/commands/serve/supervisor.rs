//! What a supervisor is told that started this process with a notification socket (systemd's
//! `Type=notify`, or anything that speaks its protocol): ready, stopping, still at work.
//!
//! Without such a socket nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The node listens, and has applied what its log holds.
pub fn ready(member: &impl std::fmt::Display) {
    say(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("{member} runs")),
    ]);
}

/// The node begins to hand over and to stop.
pub fn stopping(why: &str) {
    say(&[
        NotifyState::Stopping,
        NotifyState::Status(&format!("{why}: handing over and stopping")),
    ]);
}

/// Says for ever that the process is at work, twice in the time after which the supervisor ends it.
/// It shows that tasks are run, and nothing else: a restart gives no quorum and mends no disk.
pub async fn at_work() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        say(&[NotifyState::Watchdog]);
    }
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor was told nothing; look at NOTIFY_SOCKET");
    }
}
