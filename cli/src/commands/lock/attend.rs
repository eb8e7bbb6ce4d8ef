//! The attendant: the process between `lock run` and the command.
//!
//! It is the command's parent, so that it can end the command, and all that the command started,
//! even when `lock run` was killed and can do nothing any more: the kernel tells it of that by a
//! signal. By the same signal `lock run` tells it that the lock is lost. It knows nothing of locks.

use std::ffi::OsString;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::processes::{adopt_orphans, code, end_all, reap};
use super::signals::{Signals, pass_on};
use crate::args::lock::Attend;
use crate::exit::{Exit, Failure};

/// Tells the attendant to end the command.
pub const END_IT: Signal = Signal::USR1;

/// Runs the command. Answers its exit code.
pub fn attend(attend: &Attend) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(attend))
}

async fn run(attend: &Attend) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let mut end_it = signal(SignalKind::from_raw(END_IT.as_raw()))?;
    let mut child_ended = signal(SignalKind::child())?;
    set_parent_process_death_signal(Some(END_IT))
        .map_err(|error| Failure::error("io", error.to_string()))?;
    if Pid::as_raw(getppid()) != attend.parent {
        return Err(Failure::error(
            "parent_ended",
            "quorate lock run has ended, so the command was not started",
        ));
    }
    adopt_orphans()?;
    let pid = start(&attend.command)?;
    let status = loop {
        tokio::select! {
            biased;
            _ = end_it.recv() => break end_all(Some(pid), attend.kill_after).await,
            signal = signals.next() => pass_on(signal, pid),
            _ = child_ended.recv() => {
                if let Some(status) = reap(Some(pid)) {
                    break Some(status);
                }
            }
        }
    };
    // Without a status the command hangs in the kernel, and was killed as far as can be.
    Ok(status.map_or(128 + 9, code))
}

fn start(command: &[OsString]) -> Result<Pid, Failure> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        Failure::new(
            Exit::Invalid,
            "invalid_argument",
            "there is no command to run",
        )
    })?;
    match Command::new(program).args(arguments).spawn() {
        Ok(child) => Ok(Pid::from_child(&child)),
        Err(error) => Err(not_started(program, &error)),
    }
}

fn not_started(program: &OsString, error: &std::io::Error) -> Failure {
    let (exit, code) = match error.kind() {
        std::io::ErrorKind::NotFound => (Exit::NoCommand, "command_not_found"),
        _ => (Exit::NotExecutable, "command_not_executable"),
    };
    let program = program.to_string_lossy();
    Failure::new(exit, code, format!("cannot run {program:?}: {error}"))
}
