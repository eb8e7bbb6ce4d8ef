//! Everything that processes store or send.

use quorate_statemachine::process::{
    self, Ending, Event, Grant, Process, ProcessState, ProcessView, Selection, WakeTarget,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Action, Answer, Query, Timestamp};

use super::name;

/// Every operation, each with every field filled.
pub fn process_actions() -> Vec<Action> {
    let id = name("p");
    let register = process::Register {
        id: id.clone(),
        definition: b"definition".to_vec(),
        wake_target: Some(wake_target()),
    };
    let complete = process::Complete {
        id: id.clone(),
        state: ProcessState::Failed,
        outcome: b"why".to_vec(),
    };
    let external_ref = process::SetExternalRef {
        id: id.clone(),
        external_ref: b"elsewhere".to_vec(),
    };
    let wait = process::SetWait {
        id: id.clone(),
        wait: Some(b"for".to_vec()),
    };
    let ack = process::AckWake {
        id: id.clone(),
        sequence: 7,
    };
    let delete = process::DeleteGrant {
        scope: name("scope"),
        process_id: id.clone(),
    };
    let moved = process::MoveGrants {
        from: name("scope"),
        to: name("other"),
        to_session: name("session"),
        process_ids: vec![id],
    };
    let detach = process::DetachSession {
        session: name("session"),
    };
    vec![
        register.into(),
        process_append().into(),
        complete.into(),
        external_ref.into(),
        wait.into(),
        ack.into(),
        process::PutGrant { grant: grant_row() }.into(),
        delete.into(),
        moved.into(),
        detach.into(),
    ]
}

pub fn process_append() -> process::Append {
    process::Append {
        id: name("p"),
        event_type: name("started"),
        key: Some(name("k1")),
        payload: b"payload".to_vec(),
        wakes: true,
        after_end: true,
        ends: Some(Ending {
            state: ProcessState::Succeeded,
            outcome: b"done".to_vec(),
        }),
    }
}

fn wake_target() -> WakeTarget {
    WakeTarget {
        session: name("session"),
        target: b"target".to_vec(),
    }
}

pub fn process_row() -> Process {
    Process {
        id: name("p"),
        state: ProcessState::Failed,
        created_at: Timestamp(1_000),
        updated_at: Timestamp(2_000),
        last_sequence: 7,
        outcome: Some(b"why".to_vec()),
        external_ref: Some(b"elsewhere".to_vec()),
        wait: Some(b"for".to_vec()),
        wake_target: Some(wake_target()),
    }
}

fn process_view() -> ProcessView {
    ProcessView {
        process: process_row(),
        definition: b"definition".to_vec(),
    }
}

pub fn grant_row() -> Grant {
    Grant {
        scope: name("scope"),
        session: name("session"),
        process_id: name("p"),
        descriptor: b"descriptor".to_vec(),
    }
}

pub fn event_row() -> Event {
    Event {
        sequence: 7,
        event_type: name("started"),
        at: Timestamp(2_000),
        index: 302,
        key: Some(name("k1")),
        payload: b"payload".to_vec(),
    }
}

/// Every query.
pub fn process_queries() -> Vec<(&'static str, Query)> {
    let (id, limit) = (name("p"), 100);
    let list = process::List {
        prefix: "pre".to_owned(),
        state: Some(ProcessState::Failed),
        after: Some(id.clone()),
        limit,
    };
    let events = |only| {
        process::Query::Events(process::Events {
            id: id.clone(),
            after: 7,
            only,
            limit,
        })
    };
    let count = process::CountEvents {
        id: id.clone(),
        event_type: name("started"),
        through: 7,
    };
    let to = process::GrantsTo {
        scope: name("scope"),
        running: true,
        after: Some(id.clone()),
        limit,
    };
    let of = process::GrantsOf {
        process_id: id.clone(),
        after: Some((name("session"), name("scope"))),
        limit,
    };
    let has = process::HasGrant {
        scope: name("scope"),
        process_id: id.clone(),
    };
    let get = process::Get { id: id.clone() };
    let all = [
        ("process.get", process::Query::Get(get)),
        ("process.list", process::Query::List(list)),
        ("process.events", events(Selection::All)),
        ("process.events_last", events(Selection::Last(3))),
        (
            "process.events_of_type",
            events(Selection::OfType(name("t"))),
        ),
        ("process.events_pending", events(Selection::PendingWakes)),
        ("process.count_events", process::Query::CountEvents(count)),
        ("process.grants_to", process::Query::GrantsTo(to)),
        ("process.grants_of", process::Query::GrantsOf(of)),
        ("process.has_grant", process::Query::HasGrant(has)),
    ];
    all.map(|(name, query)| (name, Query::Process(query)))
        .into()
}

/// An answer to every query.
pub fn process_answers() -> Vec<(&'static str, Answer)> {
    let granted = (grant_row(), process_view());
    let all = [
        ("process.get", process::Answer::Get(Some(process_view()))),
        ("process.list", process::Answer::List(page(process_view()))),
        (
            "process.events",
            process::Answer::Events(Some(page(event_row()))),
        ),
        (
            "process.count_events",
            process::Answer::CountEvents(Some(3)),
        ),
        (
            "process.grants_to",
            process::Answer::GrantsTo(page(granted)),
        ),
        (
            "process.grants_of",
            process::Answer::GrantsOf(Some(page(grant_row()))),
        ),
        ("process.has_grant", process::Answer::HasGrant(true)),
    ];
    all.map(|(name, answer)| (name, Answer::Process(answer)))
        .into()
}

fn page<T>(row: T) -> Page<T> {
    Page {
        rows: vec![row],
        next: Some("next".to_owned()),
    }
}

/// An answer to every operation.
pub fn process_responses() -> Vec<(&'static str, process::Response)> {
    use process::Response;
    let process = process_row;
    let registered = process::Registered {
        process: process(),
        existed: true,
    };
    let appended = process::Appended {
        sequence: 7,
        at: Timestamp(2_000),
        duplicate: true,
        process: process(),
    };
    let completed = process::Completed {
        process: process(),
        existed: false,
    };
    let referenced = process::ExternalRefSet {
        process: process(),
        existed: true,
    };
    let waits = process::WaitSet { process: process() };
    let acked = process::WakeAcked { was_pending: true };
    let put = process::GrantPut { existed: true };
    let deleted = process::GrantDeleted { existed: true };
    let moved = process::GrantsMoved { moved: 3 };
    let detached = process::SessionDetached {
        revoked: 3,
        orphaned: vec![name("p")],
        preserved: vec![name("q")],
        wake_targets: 2,
    };
    vec![
        ("process.register", Response::Register(registered)),
        ("process.append", Response::Append(appended)),
        ("process.complete", Response::Complete(completed)),
        (
            "process.set_external_ref",
            Response::SetExternalRef(referenced),
        ),
        ("process.set_wait", Response::SetWait(waits)),
        ("process.ack_wake", Response::AckWake(acked)),
        ("process.put_grant", Response::PutGrant(put)),
        ("process.delete_grant", Response::DeleteGrant(deleted)),
        ("process.move_grants", Response::MoveGrants(moved)),
        ("process.detach_session", Response::DetachSession(detached)),
    ]
}
