//! Sessions as one line of text each, every field shown.

use quorate_statemachine::Name;
use quorate_statemachine::queue::ItemId;
use quorate_statemachine::session::{
    Answer, Attachment, BlobHash, BlobRow, CancelOutcome, Committed, Content, Graph, GraphId,
    GraphPage, Head, Input, InputMode, InputPushed, InputView, LaneClaim, Node, Response, Session,
    SessionSummary, SessionView, Stamp, Usage, Work, WorkClass, WorkPushed, WorkView,
};

use crate::print::{bytes, item_id, numbered, owner, page, text};

/// `3.0`: a number that step 0 of entry 3 was given.
pub fn number(number: u64) -> String {
    item_id(ItemId(number))
}

/// The text that the script made the name of.
pub fn hash(hash: &BlobHash) -> String {
    let text = String::from_utf8_lossy(&hash.0);
    text.trim_end_matches('\0').to_owned()
}

pub fn hashes<'a>(all: impl IntoIterator<Item = &'a BlobHash>) -> String {
    let all: Vec<String> = all.into_iter().map(hash).collect();
    all.join("+")
}

pub fn content(content: &Content) -> String {
    match content {
        Content::Inline(bytes) => text(bytes),
        Content::Blobs { hashes: of, bytes } => format!("@{}={bytes}", hashes(of)),
    }
}

pub fn response(response: &Response) -> String {
    match response {
        Response::Open(done) => {
            let how = if done.created { "opened" } else { "found" };
            format!("{how} {}", number(done.id.0))
        }
        Response::Delete(done) => format!("deleted existed={}", done.existed),
        Response::PutNote(_) => "noted".to_owned(),
        Response::PutBlobs(done) => format!("{} blobs stored", done.stored),
        Response::StageNodes(done) => {
            format!("staged {} nodes={}", number(done.graph.0), done.nodes)
        }
        Response::Commit(done) => committed(done),
        Response::Tombstone(done) => format!("{} nodes hidden", done.nodes),
        Response::Vacuum(done) => format!(
            "vacuumed nodes={} inputs={} more={}",
            done.nodes, done.inputs, done.more
        ),
        Response::Collect(done) => format!(
            "collected removed={} retained={} more={}",
            done.removed, done.retained, done.more
        ),
        Response::NoteAttachment(done) => format!("attachment noted={}", done.noted),
        Response::CommitAttachments(done) => format!("{} attachments stamped", done.stamped),
        Response::ForgetAttachment(done) => format!("forgotten existed={}", done.existed),
        Response::PushWork(pushed) => work_pushed(pushed),
        Response::ClaimWork(claimed) => claimed.as_ref().map_or_else(none, |claimed| {
            taken(&claimed.claim, claimed.work.iter().map(work_view))
        }),
        Response::RenewWork(done) => format!("renewed expires={}", done.expires_at.0),
        Response::AbandonWork(done) => format!("{} pieces of work given up", done.work),
        Response::CancelWork(found) => found
            .as_ref()
            .map_or_else(none, |view| format!("cancelled {}", work_view(view))),
        Response::PushInput(pushed) => input_pushed(pushed),
        Response::ClaimInputs(claimed) => claimed.as_ref().map_or_else(none, |claimed| {
            taken(&claimed.claim, claimed.inputs.iter().map(input_view))
        }),
        Response::AbandonInputs(done) => format!("{} inputs given up", done.inputs),
        Response::CancelInputs(all) => outcomes(all),
        Response::CancelInputsFrom(found) => found.as_deref().map_or_else(none, outcomes),
    }
}

fn committed(done: &Committed) -> String {
    let graph = match &done.graph {
        Some((id, row)) => format!(" graph={} {}", number(id.0), graph_row(row)),
        None => " again".to_owned(),
    };
    format!(
        "committed revision={}{graph}{}",
        done.revision,
        bytes("result", &done.result)
    )
}

fn work_pushed(pushed: &WorkPushed) -> String {
    match pushed {
        WorkPushed::Queued {
            number: queued,
            pushed_at,
        } => format!("queued {} at={}", number(*queued), pushed_at.0),
        WorkPushed::Known(view) => format!("known {}", work_view(view)),
    }
}

fn input_pushed(pushed: &InputPushed) -> String {
    match pushed {
        InputPushed::Queued {
            number: queued,
            pushed_at,
        } => format!("queued {} at={}", number(*queued), pushed_at.0),
        InputPushed::Known { input, same } => format!("known same={same} {}", input_view(input)),
    }
}

fn taken(claim: &LaneClaim, lines: impl Iterator<Item = String>) -> String {
    format!("claimed {}{}", claim_row(claim), numbered(lines))
}

fn outcomes(all: &[CancelOutcome]) -> String {
    format!("{} inputs{}", all.len(), numbered(all.iter().map(outcome)))
}

fn outcome(outcome: &CancelOutcome) -> String {
    match outcome {
        CancelOutcome::Cancelled(view) => format!("cancelled {}", input_view(view)),
        CancelOutcome::Claimed(view) => format!("claimed {}", input_view(view)),
        CancelOutcome::Ended(view) => format!("ended {}", input_view(view)),
        CancelOutcome::NotFound => "not found".to_owned(),
    }
}

pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Get(found) => found.as_ref().map_or_else(none, session_view),
        Answer::List(rows) => page(rows, summary),
        Answer::Nodes(found) => {
            let next = |next: &u64| next.to_string();
            found
                .as_ref()
                .map_or_else(none, |page| graph_page(page, next))
        }
        Answer::Path(found) => {
            let next = |next: &Name| next.to_string();
            found
                .as_ref()
                .map_or_else(none, |page| graph_page(page, next))
        }
        Answer::Node(found) => found.as_ref().map_or_else(none, node_row),
        Answer::Blobs(found) => found.as_ref().map_or_else(none, |blobs| {
            let lines = blobs.iter().map(|blob| match blob {
                Some(bytes) => text(bytes),
                None => "none".to_owned(),
            });
            format!("{} blobs{}", blobs.len(), numbered(lines))
        }),
        Answer::Work(found) => found
            .as_ref()
            .map_or_else(none, |rows| page(rows, work_view)),
        Answer::Inputs(found) => {
            let rows = found.as_ref();
            rows.map_or_else(none, |rows| page(rows, input_view))
        }
        Answer::Attachments(found) => {
            let rows = found.as_ref();
            rows.map_or_else(none, |rows| page(rows, attachment_row))
        }
    }
}

fn none() -> String {
    "none".to_owned()
}

fn graph_page<N>(page: &GraphPage<N>, next: impl Fn(&N) -> String) -> String {
    let next = page.next.as_ref().map(next);
    let next = next.map(|next| format!(", next page from {next}"));
    format!(
        "{} nodes of {}{}{}",
        page.nodes.len(),
        graph_row(&page.graph),
        next.unwrap_or_default(),
        numbered(page.nodes.iter().map(node_row))
    )
}

fn session_view(view: &SessionView) -> String {
    let note = view
        .note
        .as_ref()
        .map(|note| format!("\nnote {}", text(note)));
    let head = view.head.as_ref().map(|(head, graph)| {
        let (head, graph) = (head_row(head), graph_row(graph));
        format!("\nhead {head}\ngraph {graph}")
    });
    let usage = view.usage.iter().map(|(counter, usage)| {
        let counter = counter.escape_ascii();
        format!("\nusage {counter} {}", usage_row(usage))
    });
    format!(
        "{}{}{}{}",
        session_row(&view.session),
        note.unwrap_or_default(),
        head.unwrap_or_default(),
        usage.collect::<String>()
    )
}

fn summary(summary: &SessionSummary) -> String {
    let lane = summary.lane.as_ref().map(|lane| format!(" lane={lane}"));
    let at = summary
        .committed_at
        .map(|at| format!(" committed={}", at.0));
    format!(
        "{}{} revision={}{} nodes={}",
        session_row(&summary.session),
        lane.unwrap_or_default(),
        summary.revision,
        at.unwrap_or_default(),
        summary.nodes
    )
}

/// A session's counters.
pub fn session_row(session: &Session) -> String {
    format!(
        "{} {} created={} blobs={} loose={} bytes={} usage={} work={} inputs={} ended={} \
         attachments={}",
        session.name,
        number(session.id.0),
        session.created_at.0,
        session.blobs,
        session.loose_blobs,
        session.blob_bytes,
        session.usage,
        session.work,
        session.inputs,
        session.ended_inputs,
        session.attachments
    )
}

/// A head.
pub fn head_row(head: &Head) -> String {
    let GraphId(graph) = head.graph;
    let leaf = head.leaf.as_ref().map(|leaf| format!(" leaf={leaf}"));
    let roots = match head.roots.as_slice() {
        [] => String::new(),
        roots => format!(" roots={}", hashes(roots)),
    };
    format!(
        "lane={} revision={} committed={} graph={}{} state={}{roots}",
        head.lane,
        head.revision,
        head.committed_at.0,
        number(graph),
        leaf.unwrap_or_default(),
        content(&head.state)
    )
}

/// A graph's counters.
pub fn graph_row(graph: &Graph) -> String {
    let staged = graph.staged_at.map(|at| format!(" staged={}", at.0));
    format!(
        "next={} nodes={} tombstones={} rewritten={}{}",
        graph.next,
        graph.nodes,
        graph.tombstones,
        graph.rewritten,
        staged.unwrap_or_default()
    )
}

/// A node.
pub fn node_row(node: &Node) -> String {
    let parent = node.parent.as_ref().map(|parent| format!("<{parent}"));
    let tombstone = if node.tombstone { " tombstone" } else { "" };
    format!(
        "{}{} {}{tombstone}",
        node.id,
        parent.unwrap_or_default(),
        content(&node.body)
    )
}

/// A counter: its place, by the step that used it first, and its sums.
pub fn usage_row(usage: &Usage) -> String {
    let numbers: Vec<String> = usage.numbers.iter().map(i64::to_string).collect();
    format!(
        "order={}/{} {}",
        number(usage.order >> 10),
        usage.order & 1023,
        numbers.join(",")
    )
}

/// What became of a turn.
pub fn stamp_row(stamp: &Stamp) -> String {
    format!(
        "hash={} revision={} at={}{}",
        stamp.hash,
        stamp.revision,
        stamp.at.0,
        bytes("result", &stamp.result)
    )
}

/// Who refers to a blob.
pub fn blob_row(row: &BlobRow) -> String {
    let loose = row.loose_since.map(|at| format!(" loose={}", at.0));
    let filed = row.filed_at.map(|at| format!(" filed={}", at.0));
    format!(
        "bytes={} references={}{}{}",
        row.bytes,
        row.references,
        loose.unwrap_or_default(),
        filed.unwrap_or_default()
    )
}

fn claim_row(claim: &LaneClaim) -> String {
    format!(
        "{} token={} fencing={} claimed={} expires={}",
        owner(&claim.owner),
        claim.lease_token.as_str(),
        claim.fencing_token,
        claim.claimed_at.0,
        claim.expires_at.0
    )
}

fn claimed(claim: Option<&LaneClaim>) -> String {
    let claim = claim.map(|claim| format!(" claim[{}]", claim_row(claim)));
    claim.unwrap_or_default()
}

/// A piece of work.
pub fn work_row(work: &Work) -> String {
    let source = work
        .source
        .as_ref()
        .map(|source| format!(" source={source}"));
    let group = work
        .group
        .as_ref()
        .map(|group| format!(" group={}", text(group)));
    format!(
        "{} lane={}{} {}{}{} pushed={} available={} claims={}{}",
        number(work.number),
        work.lane,
        source.unwrap_or_default(),
        match work.class {
            WorkClass::Command => "command",
            WorkClass::Turn => "turn",
        },
        if work.anytime { " anytime" } else { "" },
        group.unwrap_or_default(),
        work.pushed_at.0,
        work.available_at.0,
        work.claims,
        claimed(work.claim.as_ref())
    )
}

fn work_view(view: &WorkView) -> String {
    format!("{} body={}", work_row(&view.work), content(&view.body))
}

/// An input.
pub fn input_row(input: &Input) -> String {
    let source = input
        .source
        .as_ref()
        .map(|source| format!(" source={source}"));
    let mode = match &input.mode {
        InputMode::Running { turn, rank } => format!("turn={turn} rank={rank}"),
        InputMode::Next => "next".to_owned(),
    };
    format!(
        "{} {} lane={}{} {mode} {} pushed={} claims={}{}",
        number(input.number),
        input.id,
        input.lane,
        source.unwrap_or_default(),
        input.state.as_str(),
        input.pushed_at.0,
        input.claims,
        claimed(input.claim.as_ref())
    )
}

fn input_view(view: &InputView) -> String {
    format!("{} body={}", input_row(&view.input), content(&view.body))
}

/// An attachment.
pub fn attachment_row(attachment: &Attachment) -> String {
    let committed = attachment
        .committed_at
        .map(|at| format!(" committed={}", at.0));
    format!(
        "{} lane={} uri={:?} intent={}{}",
        attachment.id,
        attachment.lane,
        attachment.uri,
        attachment.intent_at.0,
        committed.unwrap_or_default()
    )
}
