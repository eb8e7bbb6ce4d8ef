//! Everything that sessions answer: replies, refusals, and answers to queries.

use bytes::Bytes;
use quorate_statemachine::query::Page;
use quorate_statemachine::session::{
    self, Answer, CancelOutcome, ClaimedInputs, ClaimedWork, GraphPage, InputPushed, InputView,
    Response, SessionSummary, SessionView, WorkPushed, WorkView,
};
use quorate_statemachine::{Name, Refusal, Subject, Timestamp};

use super::name;
use super::sessions::{
    GRAPH, ID, NUMBER, attachment_row, graph_row, head_row, in_blobs, inline, input_row,
    lane_claim, node_row, session_row, usage_row, work_row,
};

fn work_view() -> WorkView {
    WorkView {
        work: work_row(),
        body: in_blobs(),
    }
}

fn input_view() -> InputView {
    InputView {
        input: input_row(),
        body: inline(),
    }
}

/// Every answer of every operation. The first one of an operation has its bare name.
pub fn session_responses() -> Vec<(&'static str, Response)> {
    let mut all = head_responses();
    all.extend(work_responses());
    all.extend(input_responses());
    all.extend(attachment_responses());
    all
}

fn head_responses() -> Vec<(&'static str, Response)> {
    let opened = session::Opened {
        id: ID,
        created: true,
    };
    let staged = session::NodesStaged {
        graph: GRAPH,
        nodes: 9,
    };
    let committed = session::Committed {
        revision: 8,
        result: Bytes::from_static(b"result"),
        graph: Some((GRAPH, graph_row())),
    };
    let again = session::Committed {
        graph: None,
        ..committed.clone()
    };
    let vacuumed = session::Vacuumed {
        nodes: 4,
        inputs: 5,
        more: true,
    };
    let collected = session::Collected {
        removed: 6,
        retained: 7,
        more: true,
    };
    let deleted = session::Deleted { existed: true };
    let put = session::BlobsPut { stored: 3 };
    let tombstoned = session::Tombstoned { nodes: 2 };
    vec![
        ("session.open", Response::Open(opened)),
        ("session.delete", Response::Delete(deleted)),
        ("session.put_note", Response::PutNote(session::NotePut)),
        ("session.put_blobs", Response::PutBlobs(put)),
        ("session.stage_nodes", Response::StageNodes(staged)),
        ("session.commit", Response::Commit(committed)),
        ("session.commit again", Response::Commit(again)),
        ("session.tombstone", Response::Tombstone(tombstoned)),
        ("session.vacuum", Response::Vacuum(vacuumed)),
        ("session.collect", Response::Collect(collected)),
    ]
}

fn work_responses() -> Vec<(&'static str, Response)> {
    let queued = WorkPushed::Queued {
        number: NUMBER,
        pushed_at: Timestamp(1_000),
    };
    let known = WorkPushed::Known(work_view());
    let claimed = ClaimedWork {
        claim: lane_claim(),
        work: vec![work_view()],
    };
    let renewed = session::WorkRenewed {
        expires_at: Timestamp(13_000),
    };
    let abandoned = session::WorkAbandoned { work: 3 };
    vec![
        ("session.push_work", Response::PushWork(queued)),
        ("session.push_work known", Response::PushWork(known)),
        ("session.claim_work", Response::ClaimWork(Some(claimed))),
        ("session.claim_work none", Response::ClaimWork(None)),
        ("session.renew_work", Response::RenewWork(renewed)),
        ("session.abandon_work", Response::AbandonWork(abandoned)),
        (
            "session.cancel_work",
            Response::CancelWork(Some(work_view())),
        ),
        ("session.cancel_work none", Response::CancelWork(None)),
    ]
}

fn input_responses() -> Vec<(&'static str, Response)> {
    let queued = InputPushed::Queued {
        number: NUMBER,
        pushed_at: Timestamp(1_000),
    };
    let known = InputPushed::Known {
        input: input_view(),
        same: true,
    };
    let claimed = ClaimedInputs {
        claim: lane_claim(),
        inputs: vec![input_view()],
    };
    let outcomes = vec![
        CancelOutcome::Cancelled(input_view()),
        CancelOutcome::Claimed(input_view()),
        CancelOutcome::Ended(input_view()),
        CancelOutcome::NotFound,
    ];
    let from = vec![CancelOutcome::Cancelled(input_view())];
    let abandoned = session::InputsAbandoned { inputs: 3 };
    vec![
        ("session.push_input", Response::PushInput(queued)),
        ("session.push_input known", Response::PushInput(known)),
        ("session.claim_inputs", Response::ClaimInputs(Some(claimed))),
        ("session.claim_inputs none", Response::ClaimInputs(None)),
        ("session.abandon_inputs", Response::AbandonInputs(abandoned)),
        ("session.cancel_inputs", Response::CancelInputs(outcomes)),
        (
            "session.cancel_inputs_from",
            Response::CancelInputsFrom(Some(from)),
        ),
        (
            "session.cancel_inputs_from none",
            Response::CancelInputsFrom(None),
        ),
    ]
}

fn attachment_responses() -> Vec<(&'static str, Response)> {
    let noted = session::AttachmentNoted { noted: true };
    let committed = session::AttachmentsCommitted { stamped: 3 };
    let forgotten = session::AttachmentForgotten { existed: true };
    vec![
        ("session.note_attachment", Response::NoteAttachment(noted)),
        (
            "session.commit_attachments",
            Response::CommitAttachments(committed),
        ),
        (
            "session.forget_attachment",
            Response::ForgetAttachment(forgotten),
        ),
    ]
}

/// Refusals that only sessions give, each with the thing it speaks of.
pub fn session_refusals() -> Vec<(&'static str, Refusal)> {
    let not_found = |subject| Refusal::NotFound {
        subject,
        name: "sess-1#70000".to_owned(),
    };
    let moved = Refusal::Moved {
        subject: Subject::Session,
        name: "sess-1".to_owned(),
        expected: 7,
        actual: 8,
    };
    vec![
        ("refusal moved", moved),
        ("refusal of a session", not_found(Subject::Session)),
        ("refusal of a turn", not_found(Subject::Turn)),
        ("refusal of work", not_found(Subject::Work)),
        ("refusal of an input", not_found(Subject::Input)),
        ("refusal of a blob", not_found(Subject::Blob)),
        ("refusal of a graph", not_found(Subject::Graph)),
    ]
}

/// An answer to every query.
pub fn session_answers() -> Vec<(&'static str, quorate_statemachine::Answer)> {
    let nodes = GraphPage {
        graph: graph_row(),
        nodes: vec![node_row()],
        next: Some(10),
    };
    let path: GraphPage<Name> = GraphPage {
        graph: graph_row(),
        nodes: vec![node_row()],
        next: Some(name("node-0")),
    };
    let blobs = vec![Some(Bytes::from_static(b"bytes")), None];
    let all = [
        ("session.get", Answer::Get(Some(view()))),
        ("session.get none", Answer::Get(None)),
        ("session.list", Answer::List(page(summary()))),
        ("session.nodes", Answer::Nodes(Some(nodes))),
        ("session.nodes none", Answer::Nodes(None)),
        ("session.path", Answer::Path(Some(path))),
        ("session.path none", Answer::Path(None)),
        ("session.node", Answer::Node(Some(node_row()))),
        ("session.node none", Answer::Node(None)),
        ("session.blobs", Answer::Blobs(Some(blobs))),
        ("session.blobs none", Answer::Blobs(None)),
        ("session.work", Answer::Work(Some(page(work_view())))),
        ("session.work none", Answer::Work(None)),
        ("session.inputs", Answer::Inputs(Some(page(input_view())))),
        ("session.inputs none", Answer::Inputs(None)),
        (
            "session.attachments",
            Answer::Attachments(Some(page(attachment_row()))),
        ),
        ("session.attachments none", Answer::Attachments(None)),
    ];
    all.map(|(name, answer)| (name, quorate_statemachine::Answer::Session(answer)))
        .into()
}

fn view() -> SessionView {
    SessionView {
        session: session_row(),
        note: Some(Bytes::from_static(b"note")),
        head: Some((head_row(), graph_row())),
        usage: vec![(b"tokens".to_vec(), usage_row())],
    }
}

fn summary() -> SessionSummary {
    SessionSummary {
        session: session_row(),
        lane: Some(name("main")),
        revision: 8,
        committed_at: Some(Timestamp(2_000)),
        nodes: 9,
    }
}

fn page<T>(row: T) -> Page<T> {
    Page {
        rows: vec![row],
        next: Some("72000".to_owned()),
    }
}
