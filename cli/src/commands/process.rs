//! `quorate process …`

use futures::StreamExt;
use quorate_client::{Client, ProcessWaits};
use quorate_statemachine::process::{Append, Complete, GrantsOf, List, ProcessState, Register};
use quorate_statemachine::{Name, Precondition};

use super::page_limit;
use crate::args::process::{Append as AppendArgs, Fence, Verb};
use crate::exit::Failure;
use crate::output::Printer;
use crate::value;

mod rows;

use rows::{AppendedRow, EventRow, GrantRow, ProcessRow};

/// Does one verb.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List {
            prefix,
            state,
            limit,
        } => {
            list(
                client,
                &prefix,
                state.map(ProcessState::from),
                limit,
                printer,
            )
            .await
        }
        Verb::Get { id } => {
            let view = client.process(&id)?.get().await?;
            let view = view.ok_or_else(|| Failure::not_found("process", &id))?;
            Ok(printer.one(&ProcessRow::of(&view))?)
        }
        Verb::Events {
            id,
            after,
            follow: false,
        } => events(client, &id, after, printer).await,
        Verb::Events {
            id,
            after,
            follow: true,
        } => follow(client, &id, after, printer).await,
        Verb::Append(args) => append(client, args, printer).await,
        Verb::Grants { id } => grants(client, &id, printer).await,
        Verb::Await { id } => {
            let name = Name::parse("id", id)?;
            let ended = ProcessWaits::new(client.clone(), name.as_str());
            let ended = ended.end(&name).await?;
            Ok(printer.one(&ProcessRow::of(&ended))?)
        }
        Verb::Register { id, definition } => {
            let definition = value::bytes("definition", &definition)?;
            let register = Register::new(Name::parse("id", id)?, definition.clone());
            let registered = client.execute(register).await?;
            let row = ProcessRow::new(&registered.process).defined(&definition);
            Ok(printer.one(&row.existing(registered.existed))?)
        }
        Verb::Complete {
            id,
            state,
            outcome,
            fence,
        } => {
            let outcome = value::bytes("outcome", &outcome)?;
            let complete = Complete {
                id: Name::parse("id", id)?,
                state: state.into(),
                outcome,
            };
            let completed = client
                .execute_under(complete, preconditions(fence)?)
                .await?;
            Ok(printer.one(&ProcessRow::new(&completed.process).existing(completed.existed))?)
        }
    }
}

async fn list(
    client: &Client,
    prefix: &str,
    state: Option<ProcessState>,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&listed(client, prefix, state, limit).await?)?)
}

/// Processes in the order of their ids, those of one state or all.
pub async fn listed(
    client: &Client,
    prefix: &str,
    state: Option<ProcessState>,
    limit: u64,
) -> Result<Vec<ProcessRow>, Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    while let Some(page) = page_limit(limit, rows.len()) {
        let prefix = prefix.to_owned();
        let list = List {
            prefix,
            state,
            after: after.take(),
            limit: page,
        };
        let page = client.process_list(list).await?;
        rows.extend(page.rows.iter().map(ProcessRow::of));
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => break,
        }
    }
    Ok(rows)
}

async fn grants(client: &Client, id: &str, printer: &mut Printer) -> Result<(), Failure> {
    let process_id = Name::parse("id", id)?;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let asked = GrantsOf {
            process_id: process_id.clone(),
            after: after.take(),
            limit: 0,
        };
        let page = client.process_grants_of(asked).await?;
        let page = page.ok_or_else(|| Failure::not_found("process", id))?;
        rows.extend(page.rows.iter().map(GrantRow::new));
        match (page.next, page.rows.into_iter().next_back()) {
            (Some(_), Some(last)) => after = Some((last.session, last.scope)),
            _ => return Ok(printer.list(&rows)?),
        }
    }
}

async fn events(
    client: &Client,
    id: &str,
    after: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&events_after(client, id, after).await?)?)
}

/// The last `count` events of a process.
pub async fn last_events(client: &Client, id: &str, count: u64) -> Result<Vec<EventRow>, Failure> {
    let view = client.process(id)?.get().await?;
    let view = view.ok_or_else(|| Failure::not_found("process", id))?;
    let last = view.process.last_sequence;
    events_after(client, id, last.saturating_sub(count)).await
}

async fn events_after(client: &Client, id: &str, mut after: u64) -> Result<Vec<EventRow>, Failure> {
    let process = client.process(id)?;
    let mut rows = Vec::new();
    loop {
        let page = process.events(after, 0).await?;
        let page = page.ok_or_else(|| Failure::not_found("process", id))?;
        rows.extend(page.rows.iter().map(|event| EventRow::new(id, event)));
        match (page.next, page.rows.last()) {
            (Some(_), Some(last)) => after = last.sequence,
            _ => return Ok(rows),
        }
    }
}

/// Prints events as they come. A time without a leader is waited out, as long as each try of the
/// client takes; only what cannot pass ends it.
async fn follow(
    client: &Client,
    id: &str,
    after: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut events = client.process(id)?.follow(after);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => printer.next(&EventRow::new(id, &event))?,
            Err(error) if error.is_passing() => eprintln!("{error}; still following"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn append(client: &Client, args: AppendArgs, printer: &mut Printer) -> Result<(), Failure> {
    let id = Name::parse("id", args.id.as_str())?;
    let event_type = Name::parse("type", args.event_type)?;
    let payload = value::bytes("payload", &args.payload)?;
    let append = Append {
        key: args.key.map(|key| Name::parse("key", key)).transpose()?,
        ..Append::new(id, event_type, payload)
    };
    let appended = client
        .execute_under(append, preconditions(args.fence)?)
        .await?;
    Ok(printer.one(&AppendedRow::new(&args.id, &appended))?)
}

fn preconditions(fences: Vec<Fence>) -> Result<Vec<Precondition>, Failure> {
    let precondition = |fence: Fence| {
        let key = Name::parse("fence", fence.key)?;
        Ok(Precondition::Lease {
            key,
            token: fence.token,
        })
    };
    fences.into_iter().map(precondition).collect()
}

#[cfg(test)]
mod tests;
