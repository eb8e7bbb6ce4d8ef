//! Target `entries`: what the log holds and what Raft's messages are made of. What can be read is
//! written back in one form.

use bytes::Bytes;
use openraft::EntryPayload;
use quorate_node::storage::{
    decode_entry, decode_log_id, decode_snapshot_meta, decode_stored_membership, decode_vote,
    encode_entry, encode_log_id, encode_snapshot_meta, encode_stored_membership, encode_vote,
    entry_log_id,
};

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let id = entry_log_id(bytes);
    if let Ok(entry) = decode_entry(Bytes::copy_from_slice(bytes)) {
        assert_eq!(id, Ok(entry.log_id));
        if let EntryPayload::Normal(proposal) = &entry.payload {
            let _ = (
                proposal.proposed_at(),
                proposal.origin(),
                proposal.command(),
            );
            assert_eq!(encode_entry(&entry), bytes, "a command is kept as it came");
        }
        let written = encode_entry(&entry);
        assert!(written.len() <= bytes.len());
        assert_eq!(decode_entry(written), Ok(entry));
    }
    // These have one form alone.
    if let Ok(vote) = decode_vote(bytes) {
        assert_eq!(encode_vote(&vote), bytes);
    }
    if let Ok(id) = decode_log_id(bytes) {
        assert_eq!(encode_log_id(&id), bytes);
    }
    if let Ok(membership) = decode_stored_membership(bytes) {
        let written = encode_stored_membership(&membership);
        assert!(written.len() <= bytes.len());
        assert_eq!(decode_stored_membership(&written), Ok(membership));
    }
    if let Ok(meta) = decode_snapshot_meta(bytes) {
        let written = encode_snapshot_meta(&meta);
        assert!(written.len() <= bytes.len());
        assert_eq!(decode_snapshot_meta(&written), Ok(meta));
    }
}
