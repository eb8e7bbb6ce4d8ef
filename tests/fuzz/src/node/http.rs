//! Target `http`: bytes on a connection to the port of probes, metrics and the console.

use super::{raw, served};

/// What else a request says, so that the console takes it for one of this node's.
const ENDING: &[u8] = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Runs one input: its first byte says whether the others are a whole request, or the path of one.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    served::with_node(async |node| {
        let address = &node.status.http_addr;
        match kind & 1 {
            0 => raw::send(address, &[bytes]).await,
            _ => raw::send(address, &[b"GET /", bytes, ENDING]).await,
        }
    });
}
