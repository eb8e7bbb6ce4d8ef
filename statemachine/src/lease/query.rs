//! Reading leases.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::history::story;
use super::{History, Lease};
use crate::id::Name;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{Key, Leases, lease_key};
use crate::time::Timestamp;
use crate::transaction::{read, read_range};
use crate::view::View;

/// The live lease of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Name,
}

/// Live leases in key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only keys that start with this; empty for all.
    pub prefix: String,
    /// Only keys after this one: where the page before ended.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// The ended grants of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryOf {
    /// The key.
    pub key: Name,
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`Get`].
    Get(Get),
    /// See [`List`].
    List(List),
    /// See [`HistoryOf`].
    History(HistoryOf),
}

/// What was read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`]: none if nobody holds the key.
    Get(Option<Lease>),
    /// Of [`List`].
    List(Page<Lease>),
    /// Of [`HistoryOf`]: the ended grants, and the live one.
    History {
        /// Ended grants, oldest first.
        history: History,
        /// The live grant.
        live: Option<Lease>,
    },
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => crate::query::check_prefix(&list.prefix),
        Query::Get(_) | Query::History(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, now: Timestamp, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => live(view, now, &get.key).map(Answer::Get),
        Query::List(list) => list_page(view, now, list).map(Answer::List),
        Query::History(of) => Ok(Answer::History {
            history: story(view, &of.key)?,
            live: live(view, now, &of.key)?,
        }),
    }
}

fn live(view: &dyn View, now: Timestamp, key: &Name) -> Result<Option<Lease>, Broken> {
    Ok(read(view, &lease_key(key))?.filter(|lease| lease.is_live(now)))
}

fn list_page(view: &dyn View, now: Timestamp, list: &List) -> Result<Page<Lease>, Broken> {
    let prefix = Key::<Leases>::first().text(&list.prefix);
    let (from, end) = listed(prefix, list.after.as_ref().map(lease_key));
    let mut page = PageLimit::new(list.limit);
    let mut rows = Vec::new();
    let mut next = None;
    read_range::<Leases>(view, &from, &end, &mut |_, lease| {
        if page.is_full() {
            next = rows.last().map(|last: &Lease| last.key.to_string());
            return ControlFlow::Break(());
        }
        if lease.is_live(now) {
            page.add(lease.metadata.len() + 200);
            rows.push(lease);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Page { rows, next })
}
