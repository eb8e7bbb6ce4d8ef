//! Sizes on the wire.

/// Largest message that either side decodes: a command or page at its limit, with room for the
/// frame around it.
pub const MESSAGE_BYTES_MAX: usize = 24 << 20;

/// A sender ends a batch when it has so many bytes, so that one large request does not hold back
/// many small ones for long.
pub const BATCH_BYTES: usize = 256 << 10;

/// Requests in one batch at most.
pub const BATCH_REQUESTS: usize = 512;

/// Bytes of one chunk of a snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// HTTP/2 flow-control window of one stream.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// HTTP/2 flow-control window of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Longest that a request may wait at a server; also what a request without a timeout gets. In
/// milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 60_000;
