//! Hostile connections: frames and messages that are none, too much of everything, deadlines that
//! nobody can keep. Meanwhile a client that behaves is served, memory stays within a bound that is
//! stated with each attack, and afterwards no socket is left.
//!
//! | module | what comes |
//! |---|---|
//! | [`frames`] | HTTP/2 and gRPC that are none, and floods of frames, on the ports of both |
//! | [`plain`] | HTTP/1 that is none, and slow heads, on the port of probes |
//! | [`crowd`] | thousands of connections that do nothing or next to nothing |
//! | [`large`] | messages that are too large, or never end |
//! | [`storm`] | requests that are late when they come, or cancelled at once |
//!
//! `edge.rs` has the bounds of connections, `refusals.rs` single bad messages.

mod crowd;
mod footprint;
mod frames;
mod h2;
mod large;
mod plain;
mod siege;
mod storm;

/// The program of a node.
const NODE: &str = env!("CARGO_BIN_EXE_test-node");
