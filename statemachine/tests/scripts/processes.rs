//! Processes: their words, and what they hold as one line of text each, every field shown.

use quorate_statemachine::Action;
use quorate_statemachine::process::{
    self, Answer, Ending, Event, Grant, Process, ProcessState, ProcessView, Query, Response,
    Selection, WakeTarget,
};

use crate::args::{Args, Bad};
use crate::print::{bytes, page, text};

/// The action that a line asks for, if its word is one of a process.
pub fn action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "register" => process::Register {
            id: args.name("id")?,
            definition: args.bytes("definition")?,
            wake_target: wake_target(args)?,
        }
        .into(),
        "append" => process::Append {
            id: args.name("id")?,
            event_type: args.name("type")?,
            key: args.optional_name("key")?,
            payload: args.bytes("payload")?,
            wakes: flag(args, "wakes")?,
            after_end: flag(args, "after-end")?,
            ends: ending(args)?,
        }
        .into(),
        "complete" => process::Complete {
            id: args.name("id")?,
            state: process_state(&args.required("state")?)?,
            outcome: args.bytes("outcome")?,
        }
        .into(),
        "set-ref" => process::SetExternalRef {
            id: args.name("id")?,
            external_ref: args.bytes("ref")?,
        }
        .into(),
        "set-wait" => process::SetWait {
            id: args.name("id")?,
            wait: args.optional("wait").map(String::into_bytes),
        }
        .into(),
        "ack-wake" => process::AckWake {
            id: args.name("id")?,
            sequence: args.required_number("sequence")?,
        }
        .into(),
        _ => return grant_action(word, args),
    }))
}

fn grant_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "grant" => process::PutGrant {
            grant: Grant {
                scope: args.name("scope")?,
                session: args.name("session")?,
                process_id: args.name("id")?,
                descriptor: args.bytes("descriptor")?,
            },
        }
        .into(),
        "revoke-grant" => process::DeleteGrant {
            scope: args.name("scope")?,
            process_id: args.name("id")?,
        }
        .into(),
        "move-grants" => process::MoveGrants {
            from: args.name("from")?,
            to: args.name("to")?,
            to_session: args.name("session")?,
            process_ids: args.names("ids")?,
        }
        .into(),
        "detach-session" => process::DetachSession {
            session: args.name("session")?,
        }
        .into(),
        _ => return Ok(None),
    }))
}

/// The query that a line asks for, if its word is one of a process.
pub fn query(word: &str, args: &mut Args) -> Result<Option<Query>, Bad> {
    Ok(Some(match word {
        "process" => Query::Get(process::Get {
            id: args.name("id")?,
        }),
        "processes" => Query::List(process::List {
            prefix: args.text("prefix"),
            state: args
                .optional("state")
                .map(|word| process_state(&word))
                .transpose()?,
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        "events" => Query::Events(process::Events {
            id: args.name("id")?,
            after: args.number("after", 0)?,
            only: selection(args)?,
            limit: args.number("limit", 0)?,
        }),
        "count-events" => Query::CountEvents(process::CountEvents {
            id: args.name("id")?,
            event_type: args.name("type")?,
            through: args.number("through", u64::MAX)?,
        }),
        "grants-to" => Query::GrantsTo(process::GrantsTo {
            scope: args.name("scope")?,
            running: flag(args, "running")?,
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        "grants-of" => Query::GrantsOf(process::GrantsOf {
            process_id: args.name("id")?,
            after: match args.optional_name("after-session")? {
                Some(session) => Some((session, args.name("after-scope")?)),
                None => None,
            },
            limit: args.number("limit", 0)?,
        }),
        "has-grant" => Query::HasGrant(process::HasGrant {
            scope: args.name("scope")?,
            process_id: args.name("id")?,
        }),
        _ => return Ok(None),
    }))
}

fn selection(args: &mut Args) -> Result<Selection, Bad> {
    if let Some(of) = args.optional_name("type")? {
        return Ok(Selection::OfType(of));
    }
    Ok(match args.optional("only").as_deref() {
        None => Selection::All,
        Some("wakes") => Selection::PendingWakes,
        Some(last) => Selection::Last(last.parse()?),
    })
}

fn flag(args: &mut Args, key: &str) -> Result<bool, Bad> {
    Ok(args.number(key, 0u8)? == 1)
}

fn wake_target(args: &mut Args) -> Result<Option<WakeTarget>, Bad> {
    let Some(session) = args.optional_name("wakes")? else {
        return Ok(None);
    };
    let target = args.bytes("target")?;
    Ok(Some(WakeTarget { session, target }))
}

fn ending(args: &mut Args) -> Result<Option<Ending>, Bad> {
    let Some(state) = args.optional("ends") else {
        return Ok(None);
    };
    Ok(Some(Ending {
        state: process_state(&state)?,
        outcome: args.bytes("outcome")?,
    }))
}

fn process_state(word: &str) -> Result<ProcessState, Bad> {
    ProcessState::from_word(word).ok_or_else(|| format!("{word:?} is no process state").into())
}

pub fn response(response: &Response) -> String {
    let again = |known: bool| if known { " again" } else { "" };
    match response {
        Response::Register(done) => {
            format!("registered{} {}", again(done.existed), row(&done.process))
        }
        Response::Append(done) => {
            let ended = match done.process.state {
                ProcessState::Running => String::new(),
                state => format!(" state={}", state.as_str()),
            };
            let wakes = done.process.wake_target.as_ref().map(target);
            format!(
                "appended{} sequence={} at={}{ended}{}",
                again(done.duplicate),
                done.sequence,
                done.at.0,
                wakes.unwrap_or_default()
            )
        }
        Response::Complete(done) => {
            format!("completed{} {}", again(done.existed), row(&done.process))
        }
        Response::SetExternalRef(done) => {
            format!("referenced{} {}", again(done.existed), row(&done.process))
        }
        Response::SetWait(done) => format!("wait set {}", row(&done.process)),
        Response::AckWake(done) => format!("acknowledged was_pending={}", done.was_pending),
        Response::PutGrant(done) => format!("granted{}", again(done.existed)),
        Response::DeleteGrant(done) => format!("grant deleted existed={}", done.existed),
        Response::MoveGrants(done) => format!("{} grants moved", done.moved),
        Response::DetachSession(done) => format!(
            "detached revoked={} orphaned={:?} preserved={:?} wake_targets={}",
            done.revoked, done.orphaned, done.preserved, done.wake_targets
        ),
    }
}

pub fn answer(answer: &Answer) -> String {
    let unknown = || "no such process".to_owned();
    match answer {
        Answer::Get(found) => found.as_ref().map_or_else(|| "none".to_owned(), view),
        Answer::List(rows) => page(rows, view),
        Answer::Events(rows) => rows
            .as_ref()
            .map_or_else(unknown, |rows| page(rows, event_row)),
        Answer::CountEvents(count) => count.map_or_else(unknown, |count| format!("{count} events")),
        Answer::GrantsTo(rows) => page(rows, |(grant, process)| {
            format!("{}: {}", grant_row(grant), view(process))
        }),
        Answer::GrantsOf(rows) => rows
            .as_ref()
            .map_or_else(unknown, |rows| page(rows, grant_row)),
        Answer::HasGrant(has) => has.to_string(),
    }
}

fn view(view: &ProcessView) -> String {
    format!(
        "{}{}",
        row(&view.process),
        bytes("definition", &view.definition)
    )
}

fn target(target: &WakeTarget) -> String {
    format!(
        " wakes={}{}",
        target.session,
        bytes("target", &target.target)
    )
}

/// A process record.
pub fn row(process: &Process) -> String {
    let note = |field: &str, note: &Option<Vec<u8>>| {
        let note = note.as_ref().map(|note| format!(" {field}={}", text(note)));
        note.unwrap_or_default()
    };
    let wakes = process.wake_target.as_ref().map(target);
    format!(
        "{} {} created={} updated={} last_sequence={}{}{}{}{}",
        process.id,
        process.state.as_str(),
        process.created_at.0,
        process.updated_at.0,
        process.last_sequence,
        note("outcome", &process.outcome),
        note("ref", &process.external_ref),
        note("wait", &process.wait),
        wakes.unwrap_or_default(),
    )
}

/// A grant.
pub fn grant_row(grant: &Grant) -> String {
    format!(
        "scope={} session={} process={}{}",
        grant.scope,
        grant.session,
        grant.process_id,
        bytes("descriptor", &grant.descriptor)
    )
}

/// An event.
pub fn event_row(event: &Event) -> String {
    let key = event.key.as_ref().map(|key| format!(" key={key}"));
    format!(
        "sequence={} type={} at={} index={}{}{}",
        event.sequence,
        event.event_type,
        event.at.0,
        event.index,
        key.unwrap_or_default(),
        bytes("payload", &event.payload),
    )
}
