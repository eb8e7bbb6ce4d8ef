//! Listings of lanes: queued work and inputs, each from the two tables in which it is stored.

use std::ops::ControlFlow;

use super::{Inputs, ROW_OVERHEAD_BYTES, WorkList};
use crate::id::Name;
use crate::query::{Page, PageLimit};
use crate::refusal::Broken;
use crate::session::SessionId;
use crate::session::content::Content;
use crate::session::input::{Input, InputView};
use crate::session::work::{Work, WorkView};
use crate::tables::{
    Range, SessionDelayedWork, SessionEndedInputs, SessionInputs, SessionWork, Table, body_key,
    lane_key, lane_range, session_range,
};
use crate::time::Timestamp;
use crate::transaction::{read, read_range};
use crate::view::View;

/// The keys of a listing of a lane, or of all, behind a row.
fn lane_listing<T: Table>(
    id: SessionId,
    lane: Option<&Name>,
    after: Option<&(Name, u64)>,
) -> Range<T> {
    let (first, end) = match lane {
        Some(lane) => lane_range(id, lane),
        None => session_range(id),
    };
    let after = after.map(|(lane, number)| lane_key::<T>(id, lane, *number).next());
    let from = after.filter(|after| after.bytes() > first.bytes());
    (from.unwrap_or(first), end)
}

/// Rows of two tables with the same keys, as one listing. What is kept of a row counts against the
/// page with the bytes of its body.
fn merged<A, B, R>(
    view: &dyn View,
    (id, lane, after): (SessionId, Option<&Name>, Option<&(Name, u64)>),
    with_second: bool,
    limit: u32,
    keep: impl Fn(&R) -> bool,
) -> Result<(Vec<(R, Content)>, bool), Broken>
where
    R: Numbered,
    A: Table<Row = R>,
    B: Table<Row = R>,
{
    let mut rows = some_rows::<A, R>(view, lane_listing(id, lane, after), limit, &keep)?;
    if with_second {
        let second = lane_listing(id, lane, after);
        rows.extend(some_rows::<B, R>(view, second, limit, &keep)?);
        rows.sort_by(|one, other| one.place().cmp(&other.place()));
    }
    let mut page = PageLimit::new(limit);
    let mut listed = Vec::new();
    for row in rows {
        if page.is_full() {
            return Ok((listed, true));
        }
        let (_, number) = row.place();
        let body = read(view, &body_key(id, number))?;
        let body = body.ok_or_else(|| Broken(format!("{number} has no body")))?;
        page.add(body.inline_bytes() + ROW_OVERHEAD_BYTES);
        listed.push((row, body));
    }
    Ok((listed, false))
}

/// Rows of one table: one more than a page takes, so that it is known whether there are more.
fn some_rows<T: Table<Row = R>, R>(
    view: &dyn View,
    (from, to): Range<T>,
    limit: u32,
    keep: impl Fn(&R) -> bool,
) -> Result<Vec<R>, Broken> {
    let mut page = PageLimit::new(limit);
    let mut rows = Vec::new();
    read_range::<T>(view, &from, &to, &mut |_, row| {
        if !keep(&row) {
            return ControlFlow::Continue(());
        }
        rows.push(row);
        if page.is_full() {
            return ControlFlow::Break(());
        }
        page.add(ROW_OVERHEAD_BYTES);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A row of a lane.
trait Numbered {
    /// Its lane and its number.
    fn place(&self) -> (&Name, u64);
}

impl Numbered for Work {
    fn place(&self) -> (&Name, u64) {
        (&self.lane, self.number)
    }
}

impl Numbered for Input {
    fn place(&self) -> (&Name, u64) {
        (&self.lane, self.number)
    }
}

pub(super) fn work_page(
    view: &dyn View,
    now: Timestamp,
    id: SessionId,
    asked: &WorkList,
) -> Result<Page<WorkView>, Broken> {
    let range = (id, asked.lane.as_ref(), asked.after.as_ref());
    let keep = |work: &Work| !asked.unclaimed || !work.is_claimed(now);
    let (rows, more) =
        merged::<SessionWork, SessionDelayedWork, _>(view, range, true, asked.limit, keep)?;
    let rows = rows.into_iter().map(|(work, body)| WorkView { work, body });
    let rows: Vec<_> = rows.collect();
    let last = rows.last().map(|row| row.work.number.to_string());
    let next = last.filter(|_| more);
    Ok(Page { rows, next })
}

pub(super) fn inputs_page(
    view: &dyn View,
    now: Timestamp,
    id: SessionId,
    asked: &Inputs,
) -> Result<Page<InputView>, Broken> {
    let range = (id, asked.lane.as_ref(), asked.after.as_ref());
    let (rows, more) = merged::<SessionInputs, SessionEndedInputs, _>(
        view,
        range,
        asked.ended,
        asked.limit,
        |input: &Input| !asked.unclaimed || !input.is_claimed(now),
    )?;
    let rows = rows
        .into_iter()
        .map(|(input, body)| InputView { input, body });
    let rows: Vec<_> = rows.collect();
    let last = rows.last().map(|row| row.input.number.to_string());
    let next = last.filter(|_| more);
    Ok(Page { rows, next })
}
