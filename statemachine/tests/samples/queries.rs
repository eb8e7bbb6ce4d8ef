//! Every query, and an answer to it.

use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{self, ClaimedItem, ItemId, ItemState};
use quorate_statemachine::{Answer, Query, lease};

use super::access::{access_answers, access_queries};
use super::locks::{lock_answers, lock_queries};
use super::name;
use super::processes::{process_answers, process_queries};
use super::rows::{history, item_row, lease_row, queue_row};
use super::session_answers::session_answers;
use super::session_commands::session_queries;

/// Every query.
pub fn queries() -> Vec<(&'static str, Query)> {
    let (prefix, limit) = ("pre".to_owned(), 50);
    let lock = name("lock");
    let items = queue::ListItems {
        queue: name("jobs"),
        state: Some(ItemState::Dead),
        after: Some(ItemId(70_000)),
        limit,
    };
    let list = lease::List {
        prefix: prefix.clone(),
        after: Some(lock.clone()),
        limit,
    };
    let queues = queue::List {
        prefix: prefix.clone(),
        after: Some(name("jobs")),
        limit,
    };
    let item = queue::Get {
        queue: name("jobs"),
        item_id: ItemId(70_000),
    };
    let mut all = vec![
        (
            "lease.get",
            Query::Lease(lease::Query::Get(lease::Get { key: lock.clone() })),
        ),
        ("lease.list", Query::Lease(lease::Query::List(list))),
        (
            "lease.history",
            Query::Lease(lease::Query::History(lease::HistoryOf { key: lock })),
        ),
        ("queue.get", Query::Queue(queue::Query::Get(item))),
        ("queue.list", Query::Queue(queue::Query::List(queues))),
        (
            "queue.list_items",
            Query::Queue(queue::Query::ListItems(items)),
        ),
    ];
    all.extend(process_queries());
    all.extend(lock_queries());
    all.extend(session_queries());
    let access = access_queries().into_iter();
    all.extend(access.map(|(name, query)| (name, Query::Access(query))));
    all
}

/// An answer to every query.
pub fn answers() -> Vec<(String, Answer)> {
    let item = ClaimedItem {
        item: item_row(),
        payload: b"work".to_vec(),
    };
    let history = lease::Answer::History {
        history: history(),
        live: Some(lease_row()),
    };
    let all = [
        (
            "lease.get",
            Answer::Lease(lease::Answer::Get(Some(lease_row()))),
        ),
        (
            "lease.list",
            Answer::Lease(lease::Answer::List(page(lease_row()))),
        ),
        ("lease.history", Answer::Lease(history)),
        (
            "queue.get",
            Answer::Queue(queue::Answer::Get(Some(item.clone()))),
        ),
        (
            "queue.list",
            Answer::Queue(queue::Answer::List(page(queue_row()))),
        ),
        (
            "queue.list_items",
            Answer::Queue(queue::Answer::ListItems(Some(page(item)))),
        ),
    ];
    let all = all.map(|(name, answer)| (name.to_owned(), answer));
    let processes = process_answers().into_iter();
    let processes = processes.map(|(name, answer)| (name.to_owned(), answer));
    let sessions = session_answers().into_iter();
    let sessions = sessions.map(|(name, answer)| (name.to_owned(), answer));
    let all = all.into_iter().chain(processes);
    let access = access_answers().into_iter();
    let access = access.map(|(name, answer)| (name.to_owned(), Answer::Access(answer)));
    all.chain(lock_answers())
        .chain(sessions)
        .chain(access)
        .collect()
}

fn page<T>(row: T) -> Page<T> {
    Page {
        rows: vec![row],
        next: Some("lock".to_owned()),
    }
}
