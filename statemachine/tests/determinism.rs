//! One log, one state: the same entries give the same replies, notices, rows and digest everywhere.

mod workload;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::lock;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::tables::{Meta, Table, meta_key, tag_of};
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Applied, Response, apply, session};

use workload::{Logged, log};

/// Entries of a log: enough for all that the tests look for to happen.
const ENTRIES: usize = 4_000;

/// Applies one entry, and checks the digest that is kept against one from all rows.
fn step_view(view: &mut MemoryView, logged: &Logged) -> Applied {
    let applied = apply(view, logged.entry()).expect("a log of good commands");
    view.commit(applied.changes.clone());
    applied
}

fn digest_kept(view: &MemoryView) -> Digest {
    read(view, &meta_key())
        .expect("the meta row is sound")
        .expect("there is a meta row")
        .digest
}

fn digest_computed(view: &MemoryView) -> Digest {
    let mut digest = Digest::default();
    for (key, value) in view
        .rows()
        .filter(|(key, _)| tag_of(key) != Some(Meta::TAG))
    {
        digest.replace(key, None, Some(value));
    }
    digest
}

/// A view with the same rows, put in by another way: from the last to the first.
fn copy(view: &MemoryView) -> MemoryView {
    let rows = view
        .rows()
        .map(|(key, value)| (key.to_vec(), Some(value.to_vec().into())));
    let mut rows: Vec<_> = rows.collect();
    rows.reverse();
    let mut copy = MemoryView::default();
    copy.commit(rows);
    copy
}

#[test]
fn one_log_gives_one_state_on_every_view() {
    for seed in 1..=8 {
        let log = log(seed, ENTRIES);
        let (mut first, mut second) = (MemoryView::default(), MemoryView::default());
        let mut rebuilt = MemoryView::default();
        for (at, logged) in log.iter().enumerate() {
            if at == log.len() / 2 {
                rebuilt = copy(&rebuilt);
            }
            let applied = step_view(&mut first, logged);
            assert_eq!(
                applied,
                step_view(&mut second, logged),
                "seed {seed}, entry {at}"
            );
            assert_eq!(
                applied,
                step_view(&mut rebuilt, logged),
                "seed {seed}, entry {at}"
            );
            assert_eq!(
                digest_kept(&first),
                digest_computed(&first),
                "seed {seed}, entry {at}"
            );
        }
        assert_eq!(first, second);
        assert_eq!(first, rebuilt);
    }
}

/// What happens to a lock now and then, as the notices tell it.
fn ends_of_locks(
    view: &mut MemoryView,
    log: &[Logged],
) -> std::collections::BTreeSet<&'static str> {
    let mut seen = std::collections::BTreeSet::new();
    for logged in log {
        let applied = step_view(view, logged);
        for notice in &applied.notices {
            match notice {
                Notice::LockGranted { .. } => seen.insert("granted"),
                Notice::LockProclaimed { .. } => seen.insert("proclaimed"),
                Notice::LockLeft { end, .. } => seen.insert(end.as_str()),
                _ => false,
            };
        }
        let over = lock::Response::Acquire(lock::Acquired::Over(lock::End::Cancelled));
        match applied.reply.0 {
            Ok(Response::Lock(response)) if response == over => seen.insert("over"),
            Ok(Response::Lock(lock::Response::Acquire(lock::Acquired::Over(end)))) => {
                seen.insert(end.as_str())
            }
            _ => false,
        };
    }
    seen
}

#[test]
fn the_logs_grant_locks_and_end_them_in_every_way() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 1..=8 {
        seen.extend(ends_of_locks(
            &mut MemoryView::default(),
            &log(seed, ENTRIES),
        ));
    }
    let all = [
        "cancelled",
        "deadlock",
        "expired",
        "gave_up",
        "granted",
        "over",
        "proclaimed",
        "released",
        "revoked",
        "waiter_died",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

/// The word for what became of an action on a session, if it did something.
fn done_to_session(response: &session::Response) -> Option<&'static str> {
    use session::Response::*;
    match response {
        Open(opened) => opened.created.then_some("open"),
        Delete(deleted) => deleted.existed.then_some("delete"),
        PutNote(_) => Some("put_note"),
        PutBlobs(put) => (put.stored > 0).then_some("put_blobs"),
        StageNodes(_) => Some("stage_nodes"),
        Commit(committed) if committed.graph.is_none() => Some("commit again"),
        Commit(_) => Some("commit"),
        Tombstone(hidden) => (hidden.nodes > 0).then_some("tombstone"),
        Vacuum(removed) => (removed.nodes > 0 && removed.inputs > 0).then_some("vacuum"),
        Collect(collected) => (collected.removed > 0).then_some("collect"),
        PushWork(session::WorkPushed::Queued { .. }) => Some("push_work"),
        PushWork(session::WorkPushed::Known(_)) => Some("push_work known"),
        ClaimWork(claimed) => claimed.as_ref().map(|_| "claim_work"),
        RenewWork(_) => Some("renew_work"),
        AbandonWork(abandoned) => (abandoned.work > 0).then_some("abandon_work"),
        CancelWork(cancelled) => cancelled.as_ref().map(|_| "cancel_work"),
        PushInput(session::InputPushed::Queued { .. }) => Some("push_input"),
        PushInput(session::InputPushed::Known { .. }) => Some("push_input known"),
        ClaimInputs(claimed) => claimed.as_ref().map(|_| "claim_inputs"),
        AbandonInputs(abandoned) => (abandoned.inputs > 0).then_some("abandon_inputs"),
        CancelInputs(outcomes) => cancelled(outcomes).then_some("cancel_inputs"),
        CancelInputsFrom(None) => None,
        CancelInputsFrom(Some(outcomes)) => cancelled(outcomes).then_some("cancel_inputs_from"),
        NoteAttachment(noted) => noted.noted.then_some("note_attachment"),
        CommitAttachments(done) => (done.stamped > 0).then_some("commit_attachments"),
        ForgetAttachment(forgotten) => forgotten.existed.then_some("forget_attachment"),
    }
}

fn cancelled(outcomes: &[session::CancelOutcome]) -> bool {
    let cancelled = |outcome| matches!(outcome, &session::CancelOutcome::Cancelled(_));
    outcomes.iter().any(cancelled)
}

#[test]
fn the_logs_do_all_that_can_be_done_to_sessions() {
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 1..=8 {
        let mut view = MemoryView::default();
        for logged in log(seed, ENTRIES) {
            if let Ok(Response::Session(response)) = step_view(&mut view, &logged).reply.0
                && let Some(what) = done_to_session(&response)
            {
                *seen.entry(what).or_default() += 1;
            }
        }
    }
    let operations = session::Command::TAGS.iter();
    let operations = operations.map(|(_, name)| name.trim_start_matches("session."));
    let all = operations.chain(["commit again", "push_work known", "push_input known"]);
    let never: Vec<_> = all.filter(|what| !seen.contains_key(what)).collect();
    assert!(never.is_empty(), "never done: {never:?}; {seen:?}");
}

/// The log above would show nothing if its commands were all refused, or never met.
#[test]
fn the_log_reaches_every_table_and_both_kinds_of_reply() {
    let mut tables = std::collections::BTreeSet::new();
    let (mut done, mut refused, mut notices) = (0, 0, 0);
    let mut view = MemoryView::default();
    for logged in log(1, ENTRIES) {
        let applied = step_view(&mut view, &logged);
        match applied.reply.0 {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
        notices += applied.notices.len();
        tables.extend(applied.changes.iter().filter_map(|(key, _)| tag_of(key)));
    }
    assert!(
        done > 300 && refused > 300 && notices > 300,
        "{done} {refused} {notices}"
    );
    let registered = quorate_statemachine::tables::REGISTRY
        .iter()
        .map(|(tag, _)| *tag);
    assert_eq!(
        tables.into_iter().collect::<Vec<_>>(),
        registered.collect::<Vec<_>>()
    );
}

#[test]
fn another_log_gives_another_digest() {
    let digests: std::collections::BTreeSet<u128> = (1..=4)
        .map(|seed| {
            let mut view = MemoryView::default();
            for logged in log(seed, 200) {
                step_view(&mut view, &logged);
            }
            digest_kept(&view).0
        })
        .collect();
    assert_eq!(digests.len(), 4);
}
