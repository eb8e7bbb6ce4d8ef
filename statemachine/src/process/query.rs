//! Reading processes and their events.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Event, Process, ProcessState};
use crate::id::Name;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{
    Key, ProcessEvents, Processes, ProcessesByState, event_key, event_range_end,
    process_id_of_state_key, process_key, process_state_key,
};
use crate::transaction::{read, read_range};
use crate::view::View;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The process.
    pub id: Name,
}

/// Records in id order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only ids that start with this; empty for all.
    pub prefix: String,
    /// Only records in this state. Costs what the matching records cost, not all of them.
    pub state: Option<ProcessState>,
    /// Only ids after this one.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Events of one process in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The process.
    pub id: Name,
    /// Only events with a higher sequence; 0 for all.
    pub after: u64,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`Get`].
    Get(Get),
    /// See [`List`].
    List(List),
    /// See [`Events`].
    Events(Events),
}

/// What was read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`].
    Get(Option<Process>),
    /// Of [`List`].
    List(Page<Process>),
    /// Of [`Events`]: none if there is no such process. `next` is the last sequence of the page.
    Events(Option<Page<Event>>),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => crate::query::check_prefix(&list.prefix),
        Query::Get(_) | Query::Events(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => read(view, &process_key(&get.id)).map(Answer::Get),
        Query::List(list) => match list.state {
            Some(state) => page_by_state(view, list, state).map(Answer::List),
            None => page_by_id(view, list).map(Answer::List),
        },
        Query::Events(events) => events_page(view, events).map(Answer::Events),
    }
}

fn page_by_id(view: &dyn View, list: &List) -> Result<Page<Process>, Broken> {
    let prefix = Key::<Processes>::first().text(&list.prefix);
    let (from, end) = listed(prefix, list.after.as_ref().map(process_key));
    let mut page = PageLimit::new(list.limit);
    let mut rows: Vec<Process> = Vec::new();
    let mut next = None;
    read_range::<Processes>(view, &from, &end, &mut |_, process| {
        if page.is_full() {
            next = rows.last().map(|last| last.id.to_string());
            return ControlFlow::Break(());
        }
        page.add(row_bytes(&process));
        rows.push(process);
        ControlFlow::Continue(())
    })?;
    Ok(Page { rows, next })
}

fn page_by_state(
    view: &dyn View,
    list: &List,
    state: ProcessState,
) -> Result<Page<Process>, Broken> {
    let ids = ids_in_state(view, list, state)?;
    let mut page = PageLimit::new(list.limit);
    let mut rows: Vec<Process> = Vec::new();
    for id in ids {
        if page.is_full() {
            let next = rows.last().map(|last| last.id.to_string());
            return Ok(Page { rows, next });
        }
        let Some(process) = read(view, &process_key(&id))? else {
            return Err(Broken(format!(
                "process {id} is indexed by state and has no row"
            )));
        };
        page.add(row_bytes(&process));
        rows.push(process);
    }
    Ok(Page { rows, next: None })
}

/// One id more than a page holds, so that the page knows whether another one follows.
fn ids_in_state(view: &dyn View, list: &List, state: ProcessState) -> Result<Vec<Name>, Broken> {
    let key = |text| process_state_key(state, text);
    let after = list.after.as_ref().map(|after| key(after.as_str()));
    let (from, end) = listed(key(&list.prefix), after);
    let mut page = PageLimit::new(list.limit);
    let mut ids = Vec::new();
    let mut invalid = None;
    read_range::<ProcessesByState>(view, &from, &end, &mut |key, ()| {
        match process_id_of_state_key(key) {
            Ok(id) => ids.push(id),
            Err(error) => {
                invalid = Some(error);
                return ControlFlow::Break(());
            }
        }
        if page.is_full() {
            return ControlFlow::Break(());
        }
        page.add(0);
        ControlFlow::Continue(())
    })?;
    invalid.map_or(Ok(ids), Err)
}

fn events_page(view: &dyn View, events: &Events) -> Result<Option<Page<Event>>, Broken> {
    if read(view, &process_key(&events.id))?.is_none() {
        return Ok(None);
    }
    let from = event_key(&events.id, events.after).next();
    let end = event_range_end(&events.id);
    let mut page = PageLimit::new(events.limit);
    let mut rows: Vec<Event> = Vec::new();
    let mut next = None;
    read_range::<ProcessEvents>(view, &from, &end, &mut |_, event| {
        if page.is_full() {
            next = rows.last().map(|last| last.sequence.to_string());
            return ControlFlow::Break(());
        }
        page.add(event.payload.len() + ROW_OVERHEAD_BYTES);
        rows.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(Some(Page { rows, next }))
}

/// Names and numbers of a row: a rough sum, so that rows without a payload count too.
const ROW_OVERHEAD_BYTES: usize = 200;

fn row_bytes(process: &Process) -> usize {
    let outcome = process.outcome.as_ref().map_or(0, Vec::len);
    process.definition.len() + outcome + ROW_OVERHEAD_BYTES
}
