//! Signals that go on to the command.

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::signal::unix::{self, SignalKind};

use crate::exit::Failure;

/// What asks a program to end, in one way or another.
const PASSED_ON: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The signals that are passed on, as they come.
///
/// One that was ignored when this process was started stays so, for the command too: `nohup` and
/// `&` in a script ask for that.
pub struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Catches them from now on.
    pub fn new() -> Result<Self, Failure> {
        let ignored = ignored();
        let caught = PASSED_ON
            .into_iter()
            .filter(|signal| ignored & bit(*signal) == 0)
            .map(|signal| {
                let stream = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
                Ok((signal, stream))
            });
        Ok(Self(caught.collect::<Result<_, Failure>>()?))
    }

    /// The next one. Dropping the call loses none.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// A bit for each signal that this process ignores; none if the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Sends `to` a signal that this process got, unless `to` got it in the same way.
pub fn pass_on(signal: Signal, to: Pid) {
    let by_key = matches!(signal, Signal::INT | Signal::QUIT);
    if by_key && in_foreground() {
        return;
    }
    // It may have ended just now.
    let _ = kill_process(to, signal);
}

/// Whether keys of a terminal signal this process group, in which the command is too.
fn in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    let group = terminal.map(rustix::termios::tcgetpgrp);
    matches!(group, Ok(Ok(group)) if group == getpgrp())
}
