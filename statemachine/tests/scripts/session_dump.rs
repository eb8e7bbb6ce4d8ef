//! Rows of sessions, decoded by their tables. Each begins with the id of its session.

use quorate_statemachine::session::{BlobHash, GarbageRow};
use quorate_statemachine::tables::{
    DueKind, SessionAttachments, SessionBlobBytes, SessionBlobs, SessionBodies, SessionDelayedWork,
    SessionEndedInputs, SessionGarbage, SessionGraphs, SessionHeads, SessionInputIds,
    SessionInputSources, SessionInputs, SessionIntents, SessionLooseBlobs, SessionNodeIds,
    SessionNodes, SessionNotes, SessionTombstones, SessionTurns, SessionUsage, SessionWork,
    SessionWorkSources, Sessions, Table, split_name,
};

use crate::args::Bad;
use crate::dump::{name, number, row};
use crate::print;
use crate::session_print::{self as show, number as id};

/// A row of one of the tables.
pub fn line(tag: u8, own: &[u8], value: &[u8]) -> Result<String, Bad> {
    if tag == Sessions::TAG {
        return Ok(show::session_row(&row::<Sessions>(value)?));
    }
    let (session, rest) = first_number(own)?;
    let line = match tag {
        SessionHeads::TAG => show::head_row(&row::<SessionHeads>(value)?),
        SessionNotes::TAG => print::text(&row::<SessionNotes>(value)?),
        SessionUsage::TAG => {
            let usage = show::usage_row(&row::<SessionUsage>(value)?);
            format!("{} {usage}", rest.escape_ascii())
        }
        SessionBodies::TAG => {
            let body = show::content(&row::<SessionBodies>(value)?);
            format!("{} {body}", id(number(rest)?))
        }
        SessionAttachments::TAG => show::attachment_row(&row::<SessionAttachments>(value)?),
        SessionIntents::TAG => {
            row::<SessionIntents>(value)?;
            let (at, attachment) = rest.split_at(8);
            format!("{} {}", number(at)?, name(attachment))
        }
        SessionGraphs::TAG..=SessionTombstones::TAG | SessionGarbage::TAG => {
            graph_line(tag, rest, value)?
        }
        SessionBlobs::TAG..=SessionLooseBlobs::TAG => blob_line(tag, rest, value)?,
        _ => lane_line(tag, rest, value)?,
    };
    Ok(format!("{} {line}", id(session)))
}

fn first_number(bytes: &[u8]) -> Result<(u64, &[u8]), Bad> {
    let (first, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or("a key has no number")?;
    Ok((u64::from_be_bytes(*first), rest))
}

fn graph_line(tag: u8, rest: &[u8], value: &[u8]) -> Result<String, Bad> {
    let (graph, rest) = first_number(rest)?;
    let line = match tag {
        SessionGraphs::TAG => show::graph_row(&row::<SessionGraphs>(value)?),
        SessionNodes::TAG => {
            let node = show::node_row(&row::<SessionNodes>(value)?);
            format!("{} {node}", number(rest)?)
        }
        SessionNodeIds::TAG => format!("{} {}", name(rest), row::<SessionNodeIds>(value)?),
        SessionTombstones::TAG => {
            row::<SessionTombstones>(value)?;
            number(rest)?.to_string()
        }
        SessionGarbage::TAG => garbage(&row::<SessionGarbage>(value)?),
        _ => return Err(format!("session table {tag:#04x} has no decoder here").into()),
    };
    Ok(format!("{} {line}", id(graph)))
}

fn garbage(row: &GarbageRow) -> String {
    format!(
        "tables_done={}{}",
        row.tables_done,
        print::bytes("after", &row.after)
    )
}

fn blob_line(tag: u8, rest: &[u8], value: &[u8]) -> Result<String, Bad> {
    let hash = show::hash(&BlobHash(rest.try_into()?));
    Ok(match tag {
        SessionBlobs::TAG => format!("{hash} {}", show::blob_row(&row::<SessionBlobs>(value)?)),
        SessionBlobBytes::TAG => {
            format!("{hash} {}", print::text(&row::<SessionBlobBytes>(value)?))
        }
        _ => {
            row::<SessionLooseBlobs>(value)?;
            hash
        }
    })
}

fn lane_line(tag: u8, rest: &[u8], value: &[u8]) -> Result<String, Bad> {
    let (lane, rest) = split_name(rest).ok_or("a key has no lane")?;
    let named = |to: u64| format!("{} {} {}", name(lane), name(rest), id(to));
    Ok(match tag {
        SessionTurns::TAG => {
            let stamp = show::stamp_row(&row::<SessionTurns>(value)?);
            format!("{} {} {stamp}", name(lane), name(rest))
        }
        SessionWork::TAG => show::work_row(&row::<SessionWork>(value)?),
        SessionDelayedWork::TAG => show::work_row(&row::<SessionDelayedWork>(value)?),
        SessionWorkSources::TAG => named(row::<SessionWorkSources>(value)?),
        SessionInputs::TAG => show::input_row(&row::<SessionInputs>(value)?),
        SessionEndedInputs::TAG => show::input_row(&row::<SessionEndedInputs>(value)?),
        SessionInputIds::TAG => named(row::<SessionInputIds>(value)?),
        SessionInputSources::TAG => named(row::<SessionInputSources>(value)?),
        _ => return Err(format!("session table {tag:#04x} has no decoder here").into()),
    })
}

/// The subject of a due entry.
pub fn due(kind: DueKind, subject: &[u8]) -> Result<String, Bad> {
    let (session, rest) = split_name(subject).ok_or("a due key has no session")?;
    let (of, rest) = first_number(rest)?;
    let rest = match kind {
        DueKind::SessionBlob => show::hash(&BlobHash(rest.try_into()?)),
        DueKind::SessionWork => {
            let (work, lane) = first_number(rest)?;
            format!("{} {}", name(lane), id(work))
        }
        _ => id(number(rest)?),
    };
    Ok(format!("{} {} {rest}", name(session), id(of)))
}
