//! Rows of sessions: their heads, graphs, blobs, queued work, inputs and attachments.
//!
//! All of them but the first table are keyed by the session's id, which is never used again: what a
//! deleted session leaves for the sweep is not seen by a new one of the same name.

use bytes::Bytes;

use super::{Key, PREFIX_BYTES, Table};
use crate::id::Name;
use crate::refusal::Broken;
use crate::session::{
    Attachment, BlobHash, BlobRow, Content, GarbageRow, Graph, GraphId, Head, Input, Node, Session,
    SessionId, Stamp, Usage, Work,
};

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident = $tag:literal $name:literal => $row:ty;)*) => {
        $(
            $(#[$doc])*
            pub struct $table;

            impl Table for $table {
                const TAG: u8 = $tag;
                const NAME: &'static str = $name;
                type Row = $row;
            }
        )*
    };
}

tables! {
    /// Sessions by name.
    Sessions = 0x50 "sessions" => Session;
    /// What sessions are, after their last commit.
    SessionHeads = 0x51 "session_heads" => Head;
    /// What programs note at sessions.
    SessionNotes = 0x52 "session_notes" => Bytes;
    /// Graphs: the one of the head, and those being staged.
    SessionGraphs = 0x53 "session_graphs" => Graph;
    /// Nodes of graphs, in the order in which they came.
    SessionNodes = 0x54 "session_nodes" => Node;
    /// Numbers of nodes by their ids.
    SessionNodeIds = 0x55 "session_node_ids" => u64;
    /// Numbers of nodes that are tombstones.
    SessionTombstones = 0x56 "session_tombstones" => ();
    /// What sessions used.
    SessionUsage = 0x57 "session_usage" => Usage;
    /// What became of turns.
    SessionTurns = 0x58 "session_turns" => Stamp;
    /// Who refers to blobs.
    SessionBlobs = 0x59 "session_blobs" => BlobRow;
    /// Bytes of blobs.
    SessionBlobBytes = 0x5a "session_blob_bytes" => Bytes;
    /// Blobs that nothing refers to.
    SessionLooseBlobs = 0x5b "session_loose_blobs" => ();
    /// Queued work whose time has come.
    SessionWork = 0x5c "session_work" => Work;
    /// Queued work that waits for its time.
    SessionDelayedWork = 0x5d "session_delayed_work" => Work;
    /// Queued work by source.
    SessionWorkSources = 0x5e "session_work_sources" => u64;
    /// Inputs that are neither completed nor cancelled.
    SessionInputs = 0x5f "session_inputs" => Input;
    /// Inputs that are completed or cancelled.
    SessionEndedInputs = 0x60 "session_ended_inputs" => Input;
    /// Inputs by id.
    SessionInputIds = 0x61 "session_input_ids" => u64;
    /// Inputs by source.
    SessionInputSources = 0x62 "session_input_sources" => u64;
    /// What work and inputs hold.
    SessionBodies = 0x63 "session_bodies" => Content;
    /// Attachments.
    SessionAttachments = 0x64 "session_attachments" => Attachment;
    /// Attachments that are not committed, by the time of the intent.
    SessionIntents = 0x65 "session_intents" => ();
    /// What the sweep removes, and how far it is.
    SessionGarbage = 0x66 "session_garbage" => GarbageRow;
}

/// A range of keys: from, and to (exclusive).
pub type Range<T> = (Key<T>, Key<T>);

fn of<T: Table>(id: SessionId) -> Key<T> {
    Key::first().number(id.0)
}

/// All rows of a session in one table.
#[must_use]
pub fn session_range<T: Table>(id: SessionId) -> Range<T> {
    (of(id), of(id).end())
}

/// Key of a session.
#[must_use]
pub fn session_row_key(name: &Name) -> Key<Sessions> {
    Key::first().text(name.as_str())
}

/// Key of a row of which a session has one: head, note.
#[must_use]
pub fn session_one_key<T: Table>(id: SessionId) -> Key<T> {
    of(id)
}

/// Key of a graph, or of what the sweep removes of it.
#[must_use]
pub fn graph_key<T: Table>(id: SessionId, graph: GraphId) -> Key<T> {
    of(id).number(graph.0)
}

/// Key of a node, or of a node's tombstone, by its number.
#[must_use]
pub fn node_key<T: Table>(id: SessionId, graph: GraphId, number: u64) -> Key<T> {
    graph_key(id, graph).number(number)
}

/// Key of a node's number.
#[must_use]
pub fn node_id_key(id: SessionId, graph: GraphId, node: &Name) -> Key<SessionNodeIds> {
    graph_key(id, graph).text(node.as_str())
}

/// Key of a usage counter.
#[must_use]
pub fn usage_key(id: SessionId, counter: &[u8]) -> Key<SessionUsage> {
    of(id).raw(counter)
}

/// The counter's name inside a key.
#[must_use]
pub fn usage_name_of(key: &[u8]) -> &[u8] {
    key.get(PREFIX_BYTES + 8..).unwrap_or_default()
}

/// Key of a turn.
#[must_use]
pub fn turn_key(id: SessionId, lane: &Name, turn: &Name) -> Key<SessionTurns> {
    of(id).name(lane).text(turn.as_str())
}

/// Key of a blob, of its bytes, or of its mark as loose.
#[must_use]
pub fn blob_key<T: Table>(id: SessionId, hash: BlobHash) -> Key<T> {
    of(id).raw(&hash.0)
}

/// The blob of a key.
pub fn blob_of(key: &[u8]) -> Result<BlobHash, Broken> {
    let hash = key.get(PREFIX_BYTES + 8..).unwrap_or_default();
    <[u8; 32]>::try_from(hash)
        .map(BlobHash)
        .map_err(|_| no_meaning(key))
}

/// Key of work or of an input, by its number.
#[must_use]
pub fn lane_key<T: Table>(id: SessionId, lane: &Name, number: u64) -> Key<T> {
    of(id).name(lane).number(number)
}

/// All work or inputs of a lane.
#[must_use]
pub fn lane_range<T: Table>(id: SessionId, lane: &Name) -> Range<T> {
    let first = of(id).name(lane);
    (first.clone(), first.end())
}

/// Key of a number of work or of an input by source or id.
#[must_use]
pub fn lane_name_key<T: Table>(id: SessionId, lane: &Name, name: &Name) -> Key<T> {
    of(id).name(lane).text(name.as_str())
}

/// Key of a body.
#[must_use]
pub fn body_key(id: SessionId, number: u64) -> Key<SessionBodies> {
    of(id).number(number)
}

/// Key of an attachment.
#[must_use]
pub fn attachment_key(id: SessionId, attachment: &Name) -> Key<SessionAttachments> {
    of(id).text(attachment.as_str())
}

/// Key of an attachment that is not committed.
#[must_use]
pub fn intent_key(id: SessionId, attachment: &Attachment) -> Key<SessionIntents> {
    let at = of(id).number(attachment.intent_at.0);
    at.text(attachment.id.as_str())
}

/// Where the intents after an instant begin.
#[must_use]
pub fn intents_after(id: SessionId, at: u64) -> Key<SessionIntents> {
    match at.checked_add(1) {
        Some(next) => of(id).number(next),
        None => of(id).end(),
    }
}

/// The attachment of a key of the index by intent.
pub fn intent_of(key: &[u8]) -> Result<Name, Broken> {
    let name = key.get(PREFIX_BYTES + 16..).unwrap_or_default();
    Name::parse_bytes("attachment", name).map_err(|_| no_meaning(key))
}

/// The number at the end of a key.
pub fn number_of(key: &[u8]) -> Result<u64, Broken> {
    let number = key.last_chunk().ok_or_else(|| no_meaning(key))?;
    Ok(u64::from_be_bytes(*number))
}

fn no_meaning(key: &[u8]) -> Broken {
    Broken(format!("key {} has no meaning", key.escape_ascii()))
}
