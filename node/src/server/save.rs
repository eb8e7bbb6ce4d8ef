//! Saving a snapshot for whoever asks: a checkpoint, read from end to end into a stream.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_rpc::{NodeError, frame, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admission::overloaded;
use crate::core::Core;
use crate::disaster::clock_ms;
use crate::quarantine::Quarantine;
use crate::snapshot_file::{FileError, Header, Summary, Writer};
use crate::storage::{Checkpoint, Identity};

/// Parts that wait for a slow receiver; with [`frame::SNAPSHOT_CHUNK_BYTES`] each.
const PARTS_WAITING: usize = 4;

/// Snapshots that are saved at a time by way of one node.
pub const SAVES_MAX: usize = 2;

/// A receiver that takes no part for so long is given up: a checkpoint waits on the disk for it.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(60);

type Part = Result<v1::SnapshotPart, Status>;

/// The stream of a snapshot file.
pub type Parts = ReceiverStream<Part>;

/// Starts saving. Whoever drops the stream ends it.
pub async fn save(core: &Core) -> Result<Parts, NodeError> {
    core.quarantine.check()?;
    let place = Arc::clone(&core.saves).try_acquire_owned();
    let place = place.map_err(|_| {
        let actual = (SAVES_MAX + 1).to_string();
        overloaded("snapshots that are saved", SAVES_MAX.to_string(), actual)
    })?;
    let state = core.state.clone();
    let made = tokio::task::spawn_blocking(move || state.checkpoint()).await;
    let checkpoint = made
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    let header = header(core.identity(), &checkpoint);
    let quarantine = Arc::clone(&core.quarantine);
    let (parts, received) = mpsc::channel(PARTS_WAITING);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let rows_estimated = checkpoint.rows_estimated();
        let rows = Arc::<AtomicU64>::default();
        let sink = Sink {
            parts: parts.clone(),
            runtime: Handle::current(),
            rows: Arc::clone(&rows),
            rows_estimated,
        };
        // One who has gone away needs no error.
        if let Err(error) = write_file(&checkpoint, &header, sink, &rows, &quarantine)
            && !parts.is_closed()
        {
            tracing::error!(%error, "a snapshot was not saved");
            // One who takes nothing has no room for this either.
            let _ = parts.try_send(Err(failed(&error).into()));
        }
    });
    Ok(ReceiverStream::new(received))
}

fn failed(error: &dyn std::error::Error) -> NodeError {
    NodeError::Stopped {
        message: format!("the snapshot was not saved: {error}"),
    }
}

/// What a file of this checkpoint begins with.
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
fn write_file(
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
    let sound = quarantine.check();
    sound.map_err(|error| FileError::Io(io::Error::other(error)))?;
    Ok(writer.finish()?.1)
}

/// Sends what is written as parts.
struct Sink {
    parts: mpsc::Sender<Part>,
    runtime: Handle,
    rows: Arc<AtomicU64>,
    rows_estimated: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(frame::SNAPSHOT_CHUNK_BYTES)];
        let part = v1::SnapshotPart {
            data: Bytes::copy_from_slice(bytes),
            rows: self.rows.load(Ordering::Relaxed),
            rows_estimated: self.rows_estimated,
        };
        let sending = self.parts.send_timeout(Ok(part), RECEIVER_PATIENCE);
        self.runtime
            .block_on(sending)
            .map_err(|error| match error {
                SendTimeoutError::Closed(_) => {
                    io::Error::new(io::ErrorKind::BrokenPipe, "it is gone")
                }
                SendTimeoutError::Timeout(_) => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "the receiver took nothing for {} s",
                        RECEIVER_PATIENCE.as_secs()
                    ),
                ),
            })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
