//! A snapshot file while it is written: a checkpoint, read from end to end.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task::JoinHandle;

use super::{FileError, Header, Summary, Writer};
use crate::blocking::blocking;
use crate::core::Core;
use crate::disaster::clock_ms;
use crate::quarantine::Quarantine;
use crate::storage::{Checkpoint, Identity};

/// Pieces that wait for a slow taker.
const PIECES_WAITING: usize = 4;

/// Longest piece.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// A file while it is written. Whoever drops `pieces` ends the writing.
pub struct Stream {
    /// What the file is of.
    pub header: Header,
    /// Its bytes in order, none longer than [`PIECE_BYTES_MAX`].
    pub pieces: mpsc::Receiver<Bytes>,
    /// Ends after the last piece. Only if it is no error the pieces are a whole file.
    pub written: JoinHandle<Result<Summary, FileError>>,
    /// Rows written so far.
    pub rows: Arc<AtomicU64>,
    /// About how many rows there are.
    pub rows_estimated: u64,
}

/// Makes a checkpoint of what is applied, and writes it on a thread that may block. A taker that
/// takes nothing for `patience` is given up: the checkpoint waits on the disk for it. `held` is
/// dropped when the thread has ended.
pub async fn stream(
    core: &Core,
    patience: Duration,
    held: impl Send + 'static,
) -> Result<Stream, FileError> {
    core.quarantine.check()?;
    let state = core.state.clone();
    let made = blocking(move || state.checkpoint()).await;
    let checkpoint = made
        .map_err(io::Error::other)?
        .map_err(|error| FileError::Io(error.into()))?;
    let header = header(core.identity(), &checkpoint);
    let rows_estimated = checkpoint.rows_estimated();
    let rows = Arc::<AtomicU64>::default();
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let (of, count) = (header.clone(), Arc::clone(&rows));
    let quarantine = Arc::clone(&core.quarantine);
    let work = move |out: &mut dyn Write| {
        let _held = held;
        write(&checkpoint, &of, out, &count, &quarantine)
    };
    Ok(Stream {
        header,
        pieces,
        written: begin(work, sender, patience),
        rows,
        rows_estimated,
    })
}

/// Does `work` on a thread that may block, and sends what it writes.
fn begin(
    work: impl FnOnce(&mut dyn Write) -> Result<Summary, FileError> + Send + 'static,
    pieces: mpsc::Sender<Bytes>,
    patience: Duration,
) -> JoinHandle<Result<Summary, FileError>> {
    #[cfg(feature = "simulation")]
    if turmoil::in_simulation() {
        return tokio::spawn(simulated::write_then_send(work, pieces, patience));
    }
    let mut sink = Sink {
        pieces,
        runtime: Handle::current(),
        patience,
    };
    tokio::task::spawn_blocking(move || work(&mut sink))
}

fn header(identity: &Identity, checkpoint: &Checkpoint) -> Header {
    Header {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        saved_at_ms: clock_ms(),
        node_id: identity.node_id,
        node_name: identity.name.clone(),
        cluster_id: identity.cluster_id.clone(),
        now_ms: checkpoint.meta().now.0,
        covers: checkpoint.covers().clone(),
    }
}

/// Writes a whole file, and counts its rows.
fn write(
    checkpoint: &Checkpoint,
    header: &Header,
    out: impl Write,
    rows: &AtomicU64,
    quarantine: &Quarantine,
) -> Result<Summary, FileError> {
    let mut writer = Writer::new(out, header)?;
    let mut written = Ok(());
    let scanned = checkpoint.scan(&mut |key, value| {
        rows.fetch_add(1, Ordering::Relaxed);
        written = writer.row(key, value);
        written.is_ok()
    });
    scanned.map_err(|error| FileError::Io(error.into()))?;
    written?;
    // It may have begun meanwhile: without its end the file is no snapshot.
    quarantine.check()?;
    Ok(writer.finish()?.1)
}

/// Sends what is written.
struct Sink {
    pieces: mpsc::Sender<Bytes>,
    runtime: Handle,
    patience: Duration,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        let sending = send(&self.pieces, piece, self.patience);
        self.runtime.block_on(sending)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a slow taker, but not for ever.
async fn send(pieces: &mpsc::Sender<Bytes>, piece: &[u8], patience: Duration) -> io::Result<()> {
    let sent = pieces
        .send_timeout(Bytes::copy_from_slice(piece), patience)
        .await;
    sent.map_err(|error| match error {
        SendTimeoutError::Closed(_) => io::Error::new(io::ErrorKind::BrokenPipe, "it is gone"),
        SendTimeoutError::Timeout(_) => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the receiver took nothing for {} s", patience.as_secs()),
        ),
    })
}

/// In one thread, which may not wait for a taker: all is written, then sent.
#[cfg(feature = "simulation")]
mod simulated {
    use super::{Bytes, Duration, FileError, PIECE_BYTES_MAX, Summary, Write, mpsc, send};

    pub(super) async fn write_then_send(
        work: impl FnOnce(&mut dyn Write) -> Result<Summary, FileError>,
        pieces: mpsc::Sender<Bytes>,
        patience: Duration,
    ) -> Result<Summary, FileError> {
        let mut whole = Vec::new();
        let summary = work(&mut whole)?;
        for piece in whole.chunks(PIECE_BYTES_MAX) {
            send(&pieces, piece, patience).await?;
        }
        Ok(summary)
    }
}
