//! `quorate lock …`

use quorate_client::{Client, acquisition_text, parse_acquisition};
use quorate_statemachine::lock::{
    Answer, Found, Get, List, LockView, Member, Query, Released, WaitCancelled, Waiters,
};
use quorate_statemachine::{self as statemachine, InvalidArgument, Name, Timestamp};

use super::confirm::confirm;
use super::rows::ReleasedRow;
use super::{page_limit, wrong_answer};
use crate::args::lock::Verb;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Printer};

mod attend;
mod graph;
mod processes;
mod rows;
mod run;
mod signals;
mod watch;

pub use attend::attend;
use rows::{CancelledRow, HolderLine, HolderRow, LockRow, WaiterRow, standing};

/// Does one verb. Answers the exit code: 0, or that of the command that was run.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<u8, Failure> {
    match verb {
        Verb::Run(args) => return run::run(client, &args, printer.format()).await,
        Verb::List { prefix, limit } => list(client, &prefix, limit, printer).await,
        Verb::Get { key } => get(client, &key, printer).await,
        Verb::Waiters { key, limit } => waiters(client, &key, limit, printer).await,
        Verb::CancelWait { key, waiter } => cancel_wait(client, &key, &waiter, printer).await,
        Verb::Release { key, token } => release(client, &key, token, printer).await,
        Verb::Revoke {
            key,
            token,
            by,
            yes,
        } => {
            let whose = match token {
                Some(token) => format!("the hold with fencing token {token} of lock {key:?}"),
                None => format!("the holds of whoever has lock {key:?}"),
            };
            confirm(yes, &format!("ends {whose}"))?;
            revoke(client, &key, token, by, printer).await
        }
        Verb::Graph { prefix } => graph::run(client, &prefix, printer).await,
        Verb::Watch { prefix } => watch::run(client, &prefix, printer).await,
    }?;
    Ok(0)
}

async fn list(
    client: &Client,
    prefix: &str,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    if printer.format() == Format::Table {
        return Ok(printer.list(&listed(client, prefix, limit).await?)?);
    }
    let (views, now) = locks(client, prefix, limit).await?;
    let rows: Vec<_> = views.iter().map(|view| LockRow::new(view, now)).collect();
    Ok(printer.list(&rows)?)
}

/// Locks in key order, a line for each holder.
pub async fn listed(client: &Client, prefix: &str, limit: u64) -> Result<Vec<HolderLine>, Failure> {
    let (views, now) = locks(client, prefix, limit).await?;
    let lines = views.iter().flat_map(|view| HolderLine::all(view, now));
    Ok(lines.collect())
}

async fn get(client: &Client, key: &str, printer: &mut Printer) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let (view, now) = view(client, &key).await?;
    let view = view.ok_or_else(|| {
        let words = format!("lock {:?} is idle: nobody holds it or waits", key.as_str());
        Failure::new(Exit::NotFound, "not_found", words)
    })?;
    match printer.format() {
        Format::Table => Ok(printer.list(&HolderLine::all(&view, now))?),
        _ => Ok(printer.one(&LockRow::new(&view, now))?),
    }
}

async fn waiters(
    client: &Client,
    key: &str,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&waiting(client, key, limit).await?)?)
}

/// Those who wait for a lock, first in line first.
pub async fn waiting(client: &Client, key: &str, limit: u64) -> Result<Vec<WaiterRow>, Failure> {
    let key = Name::parse("key", key)?;
    let (members, now) = waiters_of(client, &key, limit).await?;
    let rows = (1..).zip(&members);
    Ok(rows
        .map(|(position, member)| WaiterRow::new(&key, position, member, now))
        .collect())
}

async fn cancel_wait(
    client: &Client,
    key: &str,
    waiter: &str,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let id = parse_acquisition(waiter).ok_or_else(|| {
        let limit = "an acquisition as `lock waiters` shows it";
        InvalidArgument::new("waiter", "is no UUID", limit, format!("{waiter:?}"))
    })?;
    let waiter = acquisition_text(id);
    // An unknown id could be cancelled too, before it ever arrives: from people it is a mistake.
    if client.lock_find(&key, id).await? == Found::Unknown {
        let name = format!("{waiter} of lock {}", key.as_str());
        return Err(Failure::not_found("acquisition", &name));
    }
    let over = match client.lock_cancel_wait(&key, id).await? {
        WaitCancelled::Cancelled => return Ok(printer.one(&CancelledRow::new(&key, waiter))?),
        WaitCancelled::Holding(member) => format!(
            "it was granted the lock before, and holds it with fencing token {}; `lock revoke` \
             would end that",
            member.fencing_token().unwrap_or_default()
        ),
        WaitCancelled::Over(end) => format!("it was over before ({})", end.as_str()),
    };
    let key = key.as_str();
    Err(Failure::fenced(format!(
        "lock {key:?}: {waiter} does not wait any more; {over}"
    )))
}

async fn release(
    client: &Client,
    key: &str,
    token: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let (view, now) = view(client, &key).await?;
    let holders = view.iter().flat_map(|view| &view.holders);
    let holds: Vec<_> = holders
        .filter(|holder| holder.fencing_token() == Some(token))
        .collect();
    if holds.is_empty() {
        return Err(not_held(&key, token, view.as_ref(), now));
    }
    // A holder that entered again has several acquisitions under one token.
    for hold in holds {
        if let Released::NotHeld { end } = client.lock_release(&key, hold.id.id).await? {
            return Err(Failure::fenced(format!(
                "lock {:?}: the hold with fencing token {token} was over before ({})",
                key.as_str(),
                end.as_str()
            )));
        }
    }
    Ok(printer.one(&ReleasedRow::new(&key, token))?)
}

fn not_held(key: &Name, token: u64, view: Option<&LockView>, now: Timestamp) -> Failure {
    let key = key.as_str();
    if let Some(view) = view
        && view.lock.holders as usize > view.holders.len()
    {
        let (shown, all) = (view.holders.len(), view.lock.holders);
        return Failure::error(
            "not_shown",
            format!(
                "lock {key:?}: fencing token {token} is not among the oldest {shown} of {all} \
                 holders, and others are not shown; `lock revoke {key} --token {token}` finds it"
            ),
        );
    }
    let now = view.map_or_else(
        || "nobody holds it".to_owned(),
        |view| format!("it is {}", standing(view, now)),
    );
    Failure::fenced(format!(
        "lock {key:?}: the hold with fencing token {token} is not live; {now}"
    ))
}

async fn revoke(
    client: &Client,
    key: &str,
    only: Option<u64>,
    by: String,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let revoked = client.lock_revoke(&key, only, by).await?;
    let rows: Vec<_> = revoked
        .iter()
        .filter_map(|member| HolderRow::new(member, member.expires_at))
        .collect();
    Ok(printer.list(&rows)?)
}

/// Locks in key order, and cluster time against which they are to be read.
async fn locks(
    client: &Client,
    prefix: &str,
    limit: u64,
) -> Result<(Vec<LockView>, Timestamp), Failure> {
    let (mut views, mut now, mut after) = (Vec::new(), Timestamp(0), None);
    while let Some(page) = page_limit(limit, views.len()) {
        let list = List {
            prefix: prefix.to_owned(),
            after: after.take(),
            limit: page,
        };
        let (answer, at) = ask(client, Query::List(list)).await?;
        let Answer::List(page) = answer else {
            return Err(wrong_answer("locks"));
        };
        now = at;
        views.extend(page.rows);
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => break,
        }
    }
    Ok((views, now))
}

/// The lock, unless it is idle, and cluster time.
async fn view(client: &Client, key: &Name) -> Result<(Option<LockView>, Timestamp), Failure> {
    match ask(client, Query::Get(Get { key: key.clone() })).await? {
        (Answer::Get(view), now) => Ok((view, now)),
        _ => Err(wrong_answer("a lock")),
    }
}

/// Those who wait for a lock, first in line first, and cluster time.
async fn waiters_of(
    client: &Client,
    key: &Name,
    limit: u64,
) -> Result<(Vec<Member>, Timestamp), Failure> {
    let (mut members, mut now, mut after) = (Vec::new(), Timestamp(0), None);
    while let Some(page) = page_limit(limit, members.len()) {
        let waiters = Waiters {
            key: key.clone(),
            after,
            limit: page,
        };
        let (answer, at) = ask(client, Query::Waiters(waiters)).await?;
        let Answer::Waiters(page) = answer else {
            return Err(wrong_answer("waiters"));
        };
        now = at;
        members.extend(page.rows);
        match page.next {
            Some(next) => {
                let next = next
                    .parse()
                    .map_err(|_| wrong_answer("a page of waiters"))?;
                after = Some(next);
            }
            None => break,
        }
    }
    Ok((members, now))
}

async fn ask(client: &Client, query: Query) -> Result<(Answer, Timestamp), Failure> {
    let answered = client.query(statemachine::Query::Lock(query)).await?;
    match answered.answer {
        statemachine::Answer::Lock(answer) => Ok((answer, answered.now)),
        _ => Err(wrong_answer("locks")),
    }
}

#[cfg(test)]
mod tests;
