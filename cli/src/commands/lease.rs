//! `quorate lease …`

use quorate_client::Client;
use quorate_statemachine::lease::{
    Answer, Claim, Claimed, Get, Lease, List, Query, Released, Renew,
};
use quorate_statemachine::{self as statemachine, LeaseToken, Name, Timestamp};

use super::confirm::confirm;
use super::rows::ReleasedRow;
use super::{owner, page_limit, wrong_answer};
use crate::args::lease::{Claim as ClaimArgs, Verb};
use crate::args::millis;
use crate::exit::Failure;
use crate::output::Printer;
use crate::value;

mod explain;
mod rows;
mod watch;

use rows::EndedRow;
pub use rows::LeaseRow;

/// Does one verb.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List { prefix, limit } => list(client, &prefix, limit, printer).await,
        Verb::Get { key } => get(client, &key, printer).await,
        Verb::Claim(args) => claim(client, args, printer).await,
        Verb::Renew { key, token, ttl } => {
            renew(client, &key, token, ttl.map(millis), printer).await
        }
        Verb::Release { key, token } => release(client, &key, token, printer).await,
        Verb::Revoke {
            key,
            token,
            by,
            yes,
        } => {
            confirm(
                yes,
                &format!("ends the grant of whoever holds lease {key:?}"),
            )?;
            revoke(client, &key, token, by, printer).await
        }
        Verb::History { key } => history(client, &key, printer).await,
        Verb::Explain { key } => explain::run(client, &key, printer).await,
        Verb::Watch { prefix } => watch::run(client, &prefix, printer).await,
    }
}

async fn list(
    client: &Client,
    prefix: &str,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&listed(client, prefix, limit).await?)?)
}

/// Live leases in key order.
pub async fn listed(client: &Client, prefix: &str, limit: u64) -> Result<Vec<LeaseRow>, Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    while let Some(page) = page_limit(limit, rows.len()) {
        let list = List {
            prefix: prefix.to_owned(),
            after: after.take(),
            limit: page,
        };
        let (answer, now) = ask(client, Query::List(list)).await?;
        let Answer::List(page) = answer else {
            return Err(wrong_answer("leases"));
        };
        rows.extend(page.rows.iter().map(|lease| LeaseRow::new(lease, now)));
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => break,
        }
    }
    Ok(rows)
}

async fn get(client: &Client, key: &str, printer: &mut Printer) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let row = look(client, &key).await?;
    let row = row.ok_or_else(|| Failure::not_found("lease", key.as_str()))?;
    Ok(printer.one(&row)?)
}

/// The lease as `lease get` shows it; none if nobody holds it.
pub async fn look(client: &Client, key: &Name) -> Result<Option<LeaseRow>, Failure> {
    match ask(client, Query::Get(Get { key: key.clone() })).await? {
        (Answer::Get(lease), now) => Ok(lease.map(|lease| LeaseRow::new(&lease, now))),
        _ => Err(wrong_answer("a lease")),
    }
}

async fn claim(client: &Client, args: ClaimArgs, printer: &mut Printer) -> Result<(), Failure> {
    let may_be_repeated = args.lease_token.is_some();
    let claim = new_claim(client, args)?;
    let key = claim.key.clone();
    match client.execute(claim).await? {
        Claimed::Granted(lease) => {
            // A fresh or extended grant has all of its time left; a repeated claim may not.
            let now = match may_be_repeated {
                true => cluster_time(client, &key).await.unwrap_or(lease.renewed_at),
                false => lease.renewed_at,
            };
            Ok(printer.one(&LeaseRow::new(&lease, now))?)
        }
        Claimed::Busy(holder) => {
            let now = cluster_time(client, &key)
                .await
                .unwrap_or(holder.renewed_at);
            let row = LeaseRow::new(&holder, now);
            printer.one(&row)?;
            Err(Failure::busy(format!(
                "lease {:?} is held by {:?} with fencing token {}, for {} more unless renewed",
                key.as_str(),
                holder.owner.owner_id.as_str(),
                holder.fencing_token,
                value::span(holder.expires_at.since(now)),
            )))
        }
    }
}

fn new_claim(client: &Client, args: ClaimArgs) -> Result<Claim, Failure> {
    let metadata = match &args.metadata {
        Some(text) => value::bytes("metadata", text)?,
        None => Vec::new(),
    };
    let mut builder = client
        .lease(&args.key)
        .holder(owner(&args.owner, args.incarnation.as_deref())?)
        .ttl(args.ttl)
        .same_owner(args.same_owner.into())
        .metadata(metadata);
    if let Some(token) = args.lease_token {
        builder = builder.lease_token(LeaseToken::parse(token)?);
    }
    Ok(builder.claim()?)
}

/// Renews with the proof that the cluster itself remembers: on the command line the fencing token
/// names the grant.
async fn renew(
    client: &Client,
    key: &str,
    token: u64,
    ttl_ms: Option<u64>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let grant = find_grant(client, &key, token).await?;
    let renew = Renew {
        key,
        lease_token: grant.lease_token,
        fencing_token: token,
        ttl_ms: ttl_ms.unwrap_or(grant.ttl_ms),
    };
    let renewed = client.execute(renew).await?;
    let Some(mut lease) = grant.live else {
        return Err(wrong_answer("the renewal of a live lease"));
    };
    lease.ttl_ms = renewed.ttl_ms;
    lease.expires_at = renewed.expires_at;
    let now = Timestamp(renewed.expires_at.0.saturating_sub(renewed.ttl_ms));
    Ok(printer.one(&LeaseRow::new(&lease, now))?)
}

async fn release(
    client: &Client,
    key: &str,
    token: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let grant = find_grant(client, &key, token).await?;
    match client
        .lease_release(&key, &grant.lease_token, token)
        .await?
    {
        Released::Released => Ok(printer.one(&ReleasedRow::new(&key, token))?),
        Released::NotHeld { current } => Err(lost(&key, token, current.as_ref())),
    }
}

async fn revoke(
    client: &Client,
    key: &str,
    only: Option<u64>,
    by: String,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let revoked = client.lease_revoke(&key, only, by).await?;
    let now = revoked.expires_at;
    Ok(printer.one(&LeaseRow::new(&revoked, now))?)
}

async fn history(client: &Client, key: &str, printer: &mut Printer) -> Result<(), Failure> {
    Ok(printer.list(&ended(client, key).await?)?)
}

/// The grants of a key that are over.
pub async fn ended(client: &Client, key: &str) -> Result<Vec<EndedRow>, Failure> {
    let key = Name::parse("key", key)?;
    let story = client.lease_history(&key).await?;
    let ended = story.history.ended.iter();
    Ok(ended.map(|ended| EndedRow::new(&key, ended)).collect())
}

/// What is known of the grant with a fencing token.
struct Grant {
    lease_token: LeaseToken,
    ttl_ms: u64,
    /// The lease, if the grant was live when it was read.
    live: Option<Lease>,
}

async fn find_grant(client: &Client, key: &Name, token: u64) -> Result<Grant, Failure> {
    let story = client.lease_history(key).await?;
    if let Some(lease) = story
        .live
        .clone()
        .filter(|lease| lease.fencing_token == token)
    {
        return Ok(Grant {
            lease_token: lease.lease_token.clone(),
            ttl_ms: lease.ttl_ms,
            live: Some(lease),
        });
    }
    let ended = story
        .history
        .ended
        .iter()
        .find(|ended| ended.fencing_token == token);
    match ended {
        Some(ended) => Ok(Grant {
            lease_token: ended.lease_token.clone(),
            ttl_ms: ended.ttl_ms,
            live: None,
        }),
        None => Err(lost(key, token, story.live.as_ref())),
    }
}

fn lost(key: &Name, token: u64, current: Option<&Lease>) -> Failure {
    let now = match current {
        Some(lease) => format!(
            "it is held by {:?} with fencing token {}",
            lease.owner.owner_id.as_str(),
            lease.fencing_token
        ),
        None => "nobody holds it".to_owned(),
    };
    Failure::fenced(format!(
        "lease {:?}: the grant with fencing token {token} is not live any more; {now}",
        key.as_str()
    ))
}

/// A query and cluster time against which its answer is to be read.
async fn ask(client: &Client, query: Query) -> Result<(Answer, Timestamp), Failure> {
    let answered = client.query(statemachine::Query::Lease(query)).await?;
    match answered.answer {
        statemachine::Answer::Lease(answer) => Ok((answer, answered.now)),
        _ => Err(wrong_answer("leases")),
    }
}

async fn cluster_time(client: &Client, key: &Name) -> Result<Timestamp, Failure> {
    let (_, now) = ask(client, Query::Get(Get { key: key.clone() })).await?;
    Ok(now)
}

#[cfg(test)]
mod tests;
