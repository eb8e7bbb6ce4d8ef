//! Target `h2`: bytes on a connection of gRPC, to the port of clients and to that of the nodes.

use super::{raw, served};

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4), and empty settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Runs one input: its first byte says which port, and whether the connection begins as it should.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    served::with_node(async |node| {
        let address = match kind & 1 {
            0 => &node.status.client_addr,
            _ => &node.status.peer_addr,
        };
        match kind & 2 {
            0 => raw::send(address, &[BEGINNING, bytes]).await,
            _ => raw::send(address, &[bytes]).await,
        }
    });
}
