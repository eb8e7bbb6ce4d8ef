//! All that a command has started, to be ended when it may not go on.
//!
//! A process group would not do. The command must stay in the group that quorate was started in:
//! that one is in the foreground of the terminal, so that Ctrl-C, Ctrl-Z and reading from the
//! terminal work as they do without quorate. And children may leave a group. So the processes are
//! found by descent, and whoever loses its parent is given to this process instead of to init.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait,
};
use tokio::time::{Instant, sleep, timeout};

use crate::exit::Failure;

/// How often it is seen whether all have ended: the end of a child's child is not told.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long killed processes may take to go. Only one that hangs in the kernel needs longer.
const GONE_MAX: Duration = Duration::from_secs(10);

/// From now on orphans among the descendants become children of this process.
pub fn adopt_orphans() -> Result<(), Failure> {
    set_child_subreaper(Some(getpid())).map_err(|error| Failure::error("io", error.to_string()))
}

/// Forgets children that have ended. Answers how `wanted` ended, if it is one of them.
pub fn reap(wanted: Option<Pid>) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == wanted {
            found = Some(status);
        }
    }
    found
}

/// The exit code that says how a process ended, as shells say it.
pub fn code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

/// Ends all descendants: SIGTERM, and SIGKILL after `kill_after`. Answers how `wanted` ended, if it
/// is one of them.
pub async fn end_all(wanted: Option<Pid>, kill_after: Duration) -> Option<WaitStatus> {
    for pid in descendants() {
        // One that was stopped takes the signal only when it goes on.
        let _ = kill_process(pid, Signal::TERM);
        let _ = kill_process(pid, Signal::CONT);
    }
    let kill_at = Instant::now().checked_add(kill_after);
    let mut status = None;
    let gone = async {
        loop {
            // In this order: one that ended in between is found at the latest when none is left.
            let left = descendants();
            status = status.or(reap(wanted));
            if left.is_empty() {
                return;
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                // Again and again: they may start others until they are gone.
                for pid in left {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    if timeout(kill_after.saturating_add(GONE_MAX), gone)
        .await
        .is_err()
    {
        eprintln!(
            "some processes that the command started hang in the kernel: {:?}",
            descendants()
        );
    }
    status
}

/// Processes that descend from this one and have not ended.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_of_live(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = children.remove(&getpid().as_raw_pid()).unwrap_or_default();
    while let Some(pid) = open.pop() {
        open.extend(children.remove(&pid).unwrap_or_default());
        found.extend(Pid::from_raw(pid));
    }
    found
}

/// The parent that `/proc/PID/stat` names; none of a process that has ended. The name in it is any
/// text in brackets.
fn parent_of_live(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name_and_the_dead_have_none() {
        assert_eq!(parent_of_live("7 (sh) S 3 7 7 0"), Some(3));
        assert_eq!(parent_of_live("7 (a) Z 1) R 4 7 7 0"), Some(4));
        assert_eq!(parent_of_live("7 (sh) Z 3 7 7 0"), None);
        assert_eq!(parent_of_live(""), None);
    }

    #[test]
    fn a_child_is_a_descendant_until_it_has_ended() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cat is everywhere");
        let pid = Pid::from_child(&child);
        assert!(descendants().contains(&pid));
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        assert!(!descendants().contains(&pid));
    }
}
