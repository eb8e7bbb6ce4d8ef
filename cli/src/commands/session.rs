//! `quorate session …`

use quorate_client::Client;
use quorate_statemachine::limits::SESSION_NAME_BYTES_MAX;
use quorate_statemachine::session::{
    Answer, Content, Get, Inputs, List, Node, Query, SessionRef, SessionView, WorkList,
    execution_lease,
};
use quorate_statemachine::{self as statemachine, InvalidArgument, Name, Timestamp};

use super::{lease, page_limit, wrong_answer};
use crate::args::session::Verb;
use crate::exit::Failure;
use crate::output::{Format, Printer};

mod details;
mod graph;
mod rows;

use details::{ExecutionLease, SessionDetails};
use rows::{Body, InputRow, NodeRow, SessionRow, WorkRow};

/// Does one verb.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List { prefix, limit } => list(client, &prefix, limit, printer).await,
        Verb::Get { name, graph: false } => {
            let (view, now) = look(client, &bounded("name", &name)?).await?;
            get(client, (&view, now), None, printer).await
        }
        Verb::Get { name, graph: true } => {
            let (view, now, nodes) = graph::read(client, &bounded("name", &name)?).await?;
            get(client, (&view, now), Some(&nodes), printer).await
        }
        Verb::Inputs {
            name,
            lane,
            all,
            limit,
        } => {
            let lane = lane_name(lane.as_deref())?;
            let session = reference(client, &bounded("name", &name)?).await?;
            inputs(client, &session, (lane, all), limit, printer).await
        }
        Verb::Work { name, lane, limit } => {
            let lane = lane_name(lane.as_deref())?;
            let session = reference(client, &bounded("name", &name)?).await?;
            work(client, &session, lane, limit, printer).await
        }
    }
}

async fn list(
    client: &Client,
    prefix: &str,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    while let Some(page) = page_limit(limit, rows.len()) {
        let list = List {
            prefix: prefix.to_owned(),
            after: after.take(),
            limit: page,
        };
        let page = client.session_list(list).await?;
        rows.extend(page.rows.iter().map(SessionRow::new));
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => break,
        }
    }
    Ok(printer.list(&rows)?)
}

async fn get(
    client: &Client,
    (view, now): (&SessionView, Timestamp),
    nodes: Option<&[Node]>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let session = reference_of(view);
    let execution = match &view.head {
        Some((head, _)) => {
            let key = execution_lease(&session, &head.lane)?;
            let lease = lease::look(client, &key).await?;
            Some(ExecutionLease::new(&key, lease))
        }
        None => None,
    };
    let details = SessionDetails::new(view, execution, now);
    let Some(nodes) = nodes else {
        return match printer.format() {
            Format::Table => Ok(printer.list(details.facts())?),
            _ => Ok(printer.one(&details)?),
        };
    };
    let nodes = node_rows(client, &session, nodes, printer.format()).await?;
    match printer.format() {
        Format::Table => {
            printer.list(details.facts())?;
            printer.value(&(), "")?;
            Ok(printer.list(&nodes)?)
        }
        Format::Name => Ok(printer.list(&nodes)?),
        Format::Json | Format::Jsonl => Ok(printer.one(&details.with_nodes(nodes))?),
    }
}

async fn node_rows(
    client: &Client,
    session: &SessionRef,
    nodes: &[Node],
    format: Format,
) -> Result<Vec<NodeRow>, Failure> {
    let mut rows = Vec::with_capacity(nodes.len());
    for node in nodes {
        let body = body(client, session, &node.body, format).await?;
        rows.push(NodeRow::new(node, body));
    }
    Ok(rows)
}

async fn inputs(
    client: &Client,
    session: &SessionRef,
    (lane, ended): (Option<Name>, bool),
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let (mut rows, mut after) = (Vec::new(), None);
    while let Some(page) = page_limit(limit, rows.len()) {
        let asked = Inputs {
            session: session.clone(),
            lane: lane.clone(),
            ended,
            unclaimed: false,
            after: after.take(),
            limit: page,
        };
        let (answer, now) = ask(client, Query::Inputs(asked)).await?;
        let Answer::Inputs(page) = answer else {
            return Err(wrong_answer("inputs"));
        };
        let page = page.ok_or_else(|| not_found(&session.name))?;
        for view in &page.rows {
            let body = body(client, session, &view.body, printer.format()).await?;
            rows.push(InputRow::new(&session.name, &view.input, body, now));
        }
        match (page.next, page.rows.into_iter().next_back()) {
            (Some(_), Some(last)) => after = Some((last.input.lane, last.input.number)),
            _ => break,
        }
    }
    Ok(printer.list(&rows)?)
}

async fn work(
    client: &Client,
    session: &SessionRef,
    lane: Option<Name>,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let (mut rows, mut after) = (Vec::new(), None);
    while let Some(page) = page_limit(limit, rows.len()) {
        let asked = WorkList {
            session: session.clone(),
            lane: lane.clone(),
            unclaimed: false,
            after: after.take(),
            limit: page,
        };
        let (answer, now) = ask(client, Query::Work(asked)).await?;
        let Answer::Work(page) = answer else {
            return Err(wrong_answer("work"));
        };
        let page = page.ok_or_else(|| not_found(&session.name))?;
        for view in &page.rows {
            let body = body(client, session, &view.body, printer.format()).await?;
            rows.push(WorkRow::new(&session.name, &view.work, body, now));
        }
        match (page.next, page.rows.into_iter().next_back()) {
            (Some(_), Some(last)) => after = Some((last.work.lane, last.work.number)),
            _ => break,
        }
    }
    Ok(printer.list(&rows)?)
}

/// What is stored as blobs is read for scripts alone: people see the beginning of what is stored
/// in its row, and how much the rest is, at the price of one read a page.
async fn body(
    client: &Client,
    session: &SessionRef,
    content: &Content,
    format: Format,
) -> Result<Body, Failure> {
    match content {
        Content::Inline(bytes) => Ok(Body::of(bytes)),
        Content::Blobs { .. } if !format.is_json() => Ok(Body::unread(content)),
        Content::Blobs { .. } => {
            let bytes = client.session_content(session, content).await?;
            Ok(bytes.map_or_else(|| Body::gone(content), |bytes| Body::of(&bytes)))
        }
    }
}

/// One session, and cluster time against which it is to be read.
async fn look(client: &Client, name: &Name) -> Result<(SessionView, Timestamp), Failure> {
    match ask(client, Query::Get(Get { name: name.clone() })).await? {
        (Answer::Get(Some(view)), now) => Ok((view, now)),
        (Answer::Get(None), _) => Err(not_found(name)),
        _ => Err(wrong_answer("a session")),
    }
}

/// Which session has this name now.
async fn reference(client: &Client, name: &Name) -> Result<SessionRef, Failure> {
    let (view, _) = look(client, name).await?;
    Ok(reference_of(&view))
}

fn reference_of(view: &SessionView) -> SessionRef {
    SessionRef {
        name: view.session.name.clone(),
        id: view.session.id,
    }
}

fn not_found(name: &Name) -> Failure {
    Failure::not_found("session", name.as_str())
}

/// A name of a session or of a lane: no command takes a longer one, so none can be there.
fn bounded(field: &str, text: &str) -> Result<Name, Failure> {
    InvalidArgument::check_bytes(field, text.len(), SESSION_NAME_BYTES_MAX)?;
    Ok(Name::parse(field, text)?)
}

fn lane_name(lane: Option<&str>) -> Result<Option<Name>, Failure> {
    lane.map(|lane| bounded("lane", lane)).transpose()
}

async fn ask(client: &Client, query: Query) -> Result<(Answer, Timestamp), Failure> {
    let answered = client.query(statemachine::Query::Session(query)).await?;
    match answered.answer {
        statemachine::Answer::Session(answer) => Ok((answer, answered.now)),
        _ => Err(wrong_answer("sessions")),
    }
}

#[cfg(test)]
mod tests;
