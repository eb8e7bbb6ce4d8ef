//! Who asked for what, and when: read from this node's log.
//!
//! An entry has its principal, its time and its command; how it ended is known for what this node
//! has applied since it started. What a snapshot has taken the place of is gone from the log, and
//! so from the audit: a page says where the log begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::EntryPayload;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::access::audit;
use quorate_statemachine::{Action, Command, Principal, cluster};
use tokio::sync::Semaphore;

use crate::blocking::blocking;
use crate::core::Core;
use crate::raft::{Entry, Proposal};

/// How long one page looks: it comes back with few rows, or none, rather than late.
const LOOKED_FOR: Duration = Duration::from_millis(500);

/// Pages that are made at a time; whoever asks for one more waits.
const PAGES_MAX: usize = 2;

/// Rows of a page, if fewer are not asked for.
const ROWS_MAX: usize = 1_000;

/// Entries that are looked at for a time: those of Raft have none.
const TIMED: u64 = 16;

/// Subjects of a row: of a command that names more the first ones are told.
const SUBJECTS_MAX: usize = 32;

/// One page. Reads files: it runs on a thread that may wait.
pub async fn page(core: Arc<Core>, asked: v1::AuditRequest) -> Result<v1::AuditPage, NodeError> {
    core.quarantine.check()?;
    static PAGES: Semaphore = Semaphore::const_new(PAGES_MAX);
    let turn = PAGES.acquire().await;
    let page = blocking(move || {
        // Also when whoever asked has gone meanwhile.
        let _turn = turn;
        look(&core, &asked)
    });
    let page = page.await.map_err(|error| NodeError::Stopped {
        message: error.to_string(),
    })?;
    page.map_err(|error| NodeError::Stopped {
        message: error.to_string(),
    })
}

fn look(core: &Core, asked: &v1::AuditRequest) -> std::io::Result<v1::AuditPage> {
    let applied = core.state.applied().map_or(0, |id| id.index);
    let first = core.log.first();
    let oldest = core.log.read_some(first, first.saturating_add(TIMED))?;
    let mut page = v1::AuditPage {
        first_index: first,
        first_at_ms: oldest.iter().find_map(at_ms).unwrap_or(0),
        applied_index: applied,
        now_ms: core.state.now().0,
        node: core.identity().name.clone(),
        ..v1::AuditPage::default()
    };
    let rows_max = match asked.limit as usize {
        0 => ROWS_MAX,
        limit => limit.min(ROWS_MAX),
    };
    let until = Instant::now() + LOOKED_FOR;
    let mut next = first.max(asked.after.saturating_add(1));
    let before = core
        .log
        .read_some(first.max(next.saturating_sub(TIMED)), next)?;
    let mut now_ms = before
        .iter()
        .rev()
        .find_map(at_ms)
        .unwrap_or(page.first_at_ms);
    while next <= applied {
        let entries = core.log.read_some(next, applied + 1)?;
        let Some(last) = entries.last() else {
            // Purged meanwhile: the next page begins where the log does.
            break;
        };
        let reached = last.log_id.index;
        for entry in &entries {
            // Entries of Raft itself have no time of their own: they are of that before them.
            now_ms = at_ms(entry).unwrap_or(now_ms);
            let row = row(core, entry, now_ms);
            let Some(mut row) = row.filter(|row| wanted(asked, row, page.now_ms)) else {
                continue;
            };
            row.more_subjects = row.subjects.len().saturating_sub(SUBJECTS_MAX) as u64;
            row.subjects.truncate(SUBJECTS_MAX);
            page.rows.push(row);
            if page.rows.len() == rows_max {
                page.next_after = Some(entry.log_id.index);
                return Ok(page);
            }
        }
        next = reached + 1;
        if Instant::now() >= until {
            break;
        }
    }
    if next <= applied {
        page.next_after = Some(next - 1);
    }
    Ok(page)
}

fn at_ms(entry: &Entry) -> Option<u64> {
    match &entry.payload {
        EntryPayload::Normal(proposal) => Some(proposal.proposed_at().0),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

/// What an entry tells; nothing if it is only a leader's first word.
fn row(core: &Core, entry: &Entry, at_ms: u64) -> Option<v1::AuditRow> {
    let index = entry.log_id.index;
    let row = v1::AuditRow {
        index,
        at_ms,
        ..v1::AuditRow::default()
    };
    match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Membership(membership) => {
            let voters: Vec<_> = membership.voter_ids().map(|id| id.to_string()).collect();
            let learners: Vec<_> = membership.learner_ids().map(|id| id.to_string()).collect();
            let mut row = v1::AuditRow {
                command: "cluster.membership".to_owned(),
                subjects: vec![subject("cluster", &format!("voters {}", voters.join(" ")))],
                outcome: audit::OK.to_owned(),
                ..row
            };
            if !learners.is_empty() {
                let learners = format!("learners {}", learners.join(" "));
                row.subjects.push(subject("cluster", &learners));
            }
            row.set_who(v1::audit_row::Who::Cluster);
            Some(row)
        }
        EntryPayload::Normal(proposal) => Some(command_row(core, row, proposal)),
    }
}

fn command_row(core: &Core, mut row: v1::AuditRow, proposal: &Proposal) -> v1::AuditRow {
    use v1::audit_row::Who;
    let (principal, trace) = proposal.origin();
    row.trace = trace.map_or(String::new(), |trace| trace.to_string());
    if let Some(outcome) = core.state.outcome(row.index) {
        row.outcome = outcome.to_owned();
    }
    let command = Command::decode(proposal.command());
    let own = command
        .as_ref()
        .is_ok_and(|command| audit::is_own(&command.action));
    let (who, name) = match principal {
        Principal::Named(name) => (Who::Named, name),
        Principal::Anonymous => (Who::Anonymous, ""),
        Principal::Cluster if own => (Who::Cluster, ""),
        // From a time when entries did not say who asked.
        Principal::Cluster => (Who::Unrecorded, ""),
    };
    row.set_who(who);
    name.clone_into(&mut row.principal);
    match command {
        Ok(command) => {
            row.command = audit::names(&command.action);
            row.tick = matches!(command.action, Action::Cluster(cluster::Command::Tick(_)));
            let subjects = audit::subjects(&command).into_iter();
            row.subjects = subjects
                .map(|(noun, key)| subject(noun.as_str(), &key))
                .collect();
        }
        Err(error) => row.command = format!("unknown to this build: {error}"),
    }
    row
}

fn subject(noun: &str, key: &str) -> v1::AuditSubject {
    v1::AuditSubject {
        noun: noun.to_owned(),
        key: key.to_owned(),
    }
}

fn wanted(asked: &v1::AuditRequest, row: &v1::AuditRow, now_ms: u64) -> bool {
    use v1::audit_row::Who;
    let principal = match asked.principal.as_str() {
        "" => !asked.anonymous || row.who() == Who::Anonymous,
        name => row.who() == Who::Named && row.principal == name,
    };
    let mut keys = row.subjects.iter().map(|subject| &subject.key);
    let key = asked.key_prefix.is_empty() || keys.any(|key| key.starts_with(&asked.key_prefix));
    let mut names = row.command.split(' ');
    let age_ms = now_ms.saturating_sub(row.at_ms);
    principal
        && key
        && (asked.ticks || !row.tick)
        && names.any(|name| name.starts_with(&asked.command))
        && (asked.since_ms == 0 || age_ms <= asked.since_ms)
        && (asked.before_ms == 0 || age_ms >= asked.before_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::audit_row::Who;

    fn row() -> v1::AuditRow {
        let mut row = v1::AuditRow {
            at_ms: 900,
            principal: "ci".to_owned(),
            command: "composite lease.claim queue.push".to_owned(),
            subjects: (0..SUBJECTS_MAX)
                .map(|at| subject("lease", &format!("build/{at}")))
                .chain([subject("queue", "last")])
                .collect(),
            ..v1::AuditRow::default()
        };
        row.set_who(Who::Named);
        row
    }

    fn asked(change: impl FnOnce(&mut v1::AuditRequest)) -> v1::AuditRequest {
        let mut asked = v1::AuditRequest::default();
        change(&mut asked);
        asked
    }

    #[test]
    fn each_filter_leaves_out_what_it_does_not_mean() {
        for (asked, wants) in [
            (asked(|_| {}), true),
            (asked(|asked| asked.principal = "ci".to_owned()), true),
            (asked(|asked| asked.principal = "c".to_owned()), false),
            (asked(|asked| asked.anonymous = true), false),
            (asked(|asked| asked.key_prefix = "build/".to_owned()), true),
            (asked(|asked| asked.key_prefix = "other/".to_owned()), false),
            (asked(|asked| asked.command = "lease.".to_owned()), true),
            (asked(|asked| asked.command = "lock.".to_owned()), false),
            (asked(|asked| asked.key_prefix = "last".to_owned()), true),
            (asked(|asked| asked.command = "queue.push".to_owned()), true),
            (asked(|asked| asked.since_ms = 100), true),
            (asked(|asked| asked.since_ms = 99), false),
            (asked(|asked| asked.before_ms = 100), true),
            (asked(|asked| asked.before_ms = 101), false),
        ] {
            assert_eq!(wanted(&asked, &row(), 1_000), wants, "{asked:?}");
        }
    }

    #[test]
    fn ticks_are_told_only_when_they_are_asked_for() {
        let tick = v1::AuditRow {
            tick: true,
            ..row()
        };
        assert!(!wanted(&asked(|_| {}), &tick, 1_000));
        assert!(wanted(&asked(|asked| asked.ticks = true), &tick, 1_000));
    }
}
