//! Sizes on the wire.

use quorate_statemachine::limits::COMMAND_BYTES_MAX;

/// Largest message that either side decodes: a page at its limit, with room for the frame around
/// it.
pub const MESSAGE_BYTES_MAX: usize = 24 << 20;

/// A sender ends a batch when it has so many bytes, so that one large request does not hold back
/// many small ones for long.
pub const BATCH_BYTES: usize = 256 << 10;

/// Requests in one batch at most.
pub const BATCH_REQUESTS: usize = 512;

/// Largest message of a client: a batch that was nearly full, and then the largest command. In
/// memory a message is larger than on the wire, empty requests some fifty times: so this is not the
/// bound of answers.
pub const REQUEST_BYTES_MAX: usize = COMMAND_BYTES_MAX + BATCH_BYTES + BATCH_REQUESTS * 128;

/// Bytes of one chunk of a snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// HTTP/2 flow-control window of one stream.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// HTTP/2 flow-control window of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Longest that a request may wait at a server; also what a request without a timeout gets. In
/// milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 60_000;
