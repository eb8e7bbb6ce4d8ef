//! Reading processes, their events and their grants.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Event, Grant, Process, ProcessState};
use crate::id::Name;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{
    EventsByType, Grants, GrantsByProcess, Key, PendingWakes, ProcessEvents, Processes,
    ProcessesByState, Table, definition_key, event_key, event_range_end, event_type_end,
    event_type_key, grant_key, grant_names, grants_of_process, grants_of_scope,
    process_id_of_state_key, process_key, process_state_key, sequence_of, wake_key, wakes_end,
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
    /// Which of them.
    pub only: Selection,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Which events of a process. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// All.
    All,
    /// The last so many.
    Last(u64),
    /// Those of one type. Costs what these cost, not all.
    OfType(Name),
    /// Those whose wake is pending. Costs what these cost, not all.
    PendingWakes,
}

/// How many events of one type a process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountEvents {
    /// The process.
    pub id: Name,
    /// Their type.
    pub event_type: Name,
    /// Only events with at most this sequence.
    pub through: u64,
}

/// What a scope may use, in id order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantsTo {
    /// The scope.
    pub scope: Name,
    /// Only processes that run.
    pub running: bool,
    /// Only processes after this one.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Who may use a process, in order of session, then scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantsOf {
    /// The process.
    pub process_id: Name,
    /// Only those after this session and scope.
    pub after: Option<(Name, Name)>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Whether a scope may use a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasGrant {
    /// The scope.
    pub scope: Name,
    /// The process.
    pub process_id: Name,
}

/// A record and what it was registered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// The record.
    pub process: Process,
    /// Opaque.
    pub definition: Vec<u8>,
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
    /// See [`CountEvents`].
    CountEvents(CountEvents),
    /// See [`GrantsTo`].
    GrantsTo(GrantsTo),
    /// See [`GrantsOf`].
    GrantsOf(GrantsOf),
    /// See [`HasGrant`].
    HasGrant(HasGrant),
}

/// What was read. Variants are only ever appended.
#[allow(
    clippy::large_enum_variant,
    reason = "an answer lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`].
    Get(Option<ProcessView>),
    /// Of [`List`].
    List(Page<ProcessView>),
    /// Of [`Events`]: none if there is no such process. `next` is the last sequence of the page.
    Events(Option<Page<Event>>),
    /// Of [`CountEvents`]: none if there is no such process.
    CountEvents(Option<u64>),
    /// Of [`GrantsTo`].
    GrantsTo(Page<(Grant, ProcessView)>),
    /// Of [`GrantsOf`]: none if there is no such process. `next` is the last scope of the page; go
    /// on after the session and the scope of its last row.
    GrantsOf(Option<Page<Grant>>),
    /// Of [`HasGrant`].
    HasGrant(bool),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => crate::query::check_prefix(&list.prefix),
        Query::Get(_)
        | Query::Events(_)
        | Query::CountEvents(_)
        | Query::GrantsTo(_)
        | Query::GrantsOf(_)
        | Query::HasGrant(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => read(view, &process_key(&get.id))?
            .map(|process| with_definition(view, process))
            .transpose()
            .map(Answer::Get),
        Query::List(list) => match list.state {
            Some(state) => page_by_state(view, list, state).map(Answer::List),
            None => page_by_id(view, list).map(Answer::List),
        },
        Query::Events(events) => events_page(view, events).map(Answer::Events),
        Query::CountEvents(count) => count_events(view, count).map(Answer::CountEvents),
        Query::GrantsTo(grants) => grants_to(view, grants).map(Answer::GrantsTo),
        Query::GrantsOf(grants) => grants_of(view, grants).map(Answer::GrantsOf),
        Query::HasGrant(has) => {
            let grant = read(view, &grant_key(&has.scope, &has.process_id))?;
            Ok(Answer::HasGrant(grant.is_some()))
        }
    }
}

fn with_definition(view: &dyn View, process: Process) -> Result<ProcessView, Broken> {
    let Some(definition) = read(view, &definition_key(&process.id))? else {
        return Err(Broken(format!("process {} has no definition", process.id)));
    };
    Ok(ProcessView {
        process,
        definition,
    })
}

/// A record that an index names.
fn indexed(view: &dyn View, index: &str, id: &Name) -> Result<ProcessView, Broken> {
    match read(view, &process_key(id))? {
        Some(process) => with_definition(view, process),
        None => Err(Broken(format!("process {id} is in {index} and has no row"))),
    }
}

fn page_by_id(view: &dyn View, list: &List) -> Result<Page<ProcessView>, Broken> {
    let prefix = Key::<Processes>::first().text(&list.prefix);
    let (from, end) = listed(prefix, list.after.as_ref().map(process_key));
    let mut page = PageLimit::new(list.limit);
    let (mut rows, mut next, mut broken) = (Vec::new(), None, None);
    read_range::<Processes>(view, &from, &end, &mut |_, process| {
        if page.is_full() {
            next = rows.last().map(id_of);
            return ControlFlow::Break(());
        }
        match with_definition(view, process) {
            Ok(row) => {
                page.add(row_bytes(&row));
                rows.push(row);
            }
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Page { rows, next }), Err)
}

fn page_by_state(
    view: &dyn View,
    list: &List,
    state: ProcessState,
) -> Result<Page<ProcessView>, Broken> {
    let ids = ids_in_state(view, list, state)?;
    let mut page = PageLimit::new(list.limit);
    let mut rows = Vec::new();
    for id in ids {
        if page.is_full() {
            let next = rows.last().map(id_of);
            return Ok(Page { rows, next });
        }
        let row = indexed(view, ProcessesByState::NAME, &id)?;
        page.add(row_bytes(&row));
        rows.push(row);
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
    let Some(process) = read(view, &process_key(&events.id))? else {
        return Ok(None);
    };
    let after = match events.only {
        Selection::Last(count) => events
            .after
            .max(process.last_sequence.saturating_sub(count)),
        _ => events.after,
    };
    let id = &events.id;
    match &events.only {
        Selection::All | Selection::Last(_) => {
            let (from, end) = (event_key(id, after).next(), event_range_end(id));
            let mut page = EventPage::new(events.limit);
            read_range::<ProcessEvents>(view, &from, &end, &mut |_, event| page.add(event))?;
            Ok(Some(page.finish()))
        }
        Selection::OfType(of) => {
            let from = event_type_key(id, of, after).next();
            chosen::<EventsByType>(view, events, &from, &event_type_end(id, of)).map(Some)
        }
        Selection::PendingWakes => {
            let from = wake_key(id, after).next();
            chosen::<PendingWakes>(view, events, &from, &wakes_end(id)).map(Some)
        }
    }
}

/// The events that an index names.
fn chosen<T: Table<Row = ()>>(
    view: &dyn View,
    events: &Events,
    from: &Key<T>,
    end: &Key<T>,
) -> Result<Page<Event>, Broken> {
    let mut page = EventPage::new(events.limit);
    let mut broken = None;
    read_range::<T>(view, from, end, &mut |key, ()| {
        let sequence = sequence_of(key).unwrap_or_default();
        match read(view, &event_key(&events.id, sequence)) {
            Ok(Some(event)) => return page.add(event),
            Ok(None) => {
                let (id, index) = (&events.id, T::NAME);
                broken = Some(Broken(format!(
                    "event {sequence} of process {id} is in {index} and has no row"
                )));
            }
            Err(error) => broken = Some(error),
        }
        ControlFlow::Break(())
    })?;
    broken.map_or_else(|| Ok(page.finish()), Err)
}

/// A page of events that is being read.
struct EventPage {
    limit: PageLimit,
    rows: Vec<Event>,
    next: Option<String>,
}

impl EventPage {
    fn new(limit: u32) -> Self {
        Self {
            limit: PageLimit::new(limit),
            rows: Vec::new(),
            next: None,
        }
    }

    fn add(&mut self, event: Event) -> ControlFlow<()> {
        if self.limit.is_full() {
            self.next = self.rows.last().map(|last| last.sequence.to_string());
            return ControlFlow::Break(());
        }
        self.limit.add(event.payload.len() + ROW_OVERHEAD_BYTES);
        self.rows.push(event);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Page<Event> {
        Page {
            rows: self.rows,
            next: self.next,
        }
    }
}

fn count_events(view: &dyn View, count: &CountEvents) -> Result<Option<u64>, Broken> {
    if read(view, &process_key(&count.id))?.is_none() {
        return Ok(None);
    }
    let from = event_type_key(&count.id, &count.event_type, 0);
    let end = event_type_key(&count.id, &count.event_type, count.through).next();
    let mut events = 0;
    read_range::<EventsByType>(view, &from, &end, &mut |_, ()| {
        events += 1;
        ControlFlow::Continue(())
    })?;
    Ok(Some(events))
}

fn grants_to(view: &dyn View, asked: &GrantsTo) -> Result<Page<(Grant, ProcessView)>, Broken> {
    let (mut from, end) = grants_of_scope(&asked.scope);
    if let Some(after) = &asked.after {
        from = grant_key(&asked.scope, after).next();
    }
    let mut page = PageLimit::new(asked.limit);
    let (mut rows, mut next, mut broken) = (Vec::new(), None, None);
    read_range::<Grants>(view, &from, &end, &mut |_, grant| {
        if page.is_full() {
            next = rows.last().map(|(_, row)| id_of(row));
            return ControlFlow::Break(());
        }
        match indexed(view, Grants::NAME, &grant.process_id) {
            Ok(row) if asked.running && row.process.state.is_ended() => {}
            Ok(row) => {
                page.add(row_bytes(&row) + grant.descriptor.len());
                rows.push((grant, row));
            }
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Page { rows, next }), Err)
}

fn grants_of(view: &dyn View, asked: &GrantsOf) -> Result<Option<Page<Grant>>, Broken> {
    if read(view, &process_key(&asked.process_id))?.is_none() {
        return Ok(None);
    }
    let (mut from, end) = grants_of_process(&asked.process_id);
    if let Some((session, scope)) = &asked.after {
        let process = Key::first().name(&asked.process_id);
        from = process.name(session).text(scope.as_str()).next();
    }
    let mut page = PageLimit::new(asked.limit);
    let (mut rows, mut next, mut broken) = (Vec::new(), None, None);
    read_range::<GrantsByProcess>(view, &from, &end, &mut |key, ()| {
        if page.is_full() {
            next = rows.last().map(|last: &Grant| last.scope.to_string());
            return ControlFlow::Break(());
        }
        match grant_at(view, asked, key) {
            Ok(grant) => {
                page.add(grant.descriptor.len() + ROW_OVERHEAD_BYTES);
                rows.push(grant);
            }
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Some(Page { rows, next })), Err)
}

fn grant_at(view: &dyn View, asked: &GrantsOf, key: &[u8]) -> Result<Grant, Broken> {
    let (_, scope) = grant_names(key)?;
    let id = &asked.process_id;
    read(view, &grant_key(&scope, id))?
        .ok_or_else(|| Broken(format!("grant {scope}/{id} is indexed and has no row")))
}

/// Names and numbers of a row: a rough sum, so that rows without a payload count too.
const ROW_OVERHEAD_BYTES: usize = 200;

fn id_of(row: &ProcessView) -> String {
    row.process.id.to_string()
}

fn row_bytes(row: &ProcessView) -> usize {
    let process = &row.process;
    let target = process.wake_target.as_ref().map(|wake| &wake.target);
    let notes = [&process.outcome, &process.external_ref, &process.wait];
    let notes = notes.into_iter().flatten().chain(target);
    row.definition.len() + notes.map(Vec::len).sum::<usize>() + ROW_OVERHEAD_BYTES
}
