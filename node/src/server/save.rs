//! Saving a snapshot for whoever asks.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use quorate_rpc::{NodeError, frame, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admission::overloaded;
use crate::core::Core;
use crate::snapshot_file::{self, FileError};

/// Snapshots that are saved at a time by way of one node.
pub const SAVES_MAX: usize = 2;

/// A receiver that takes no part for so long is given up.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(60);

const _: () = assert!(snapshot_file::PIECE_BYTES_MAX <= frame::SNAPSHOT_CHUNK_BYTES);

type Part = Result<v1::SnapshotPart, Status>;

/// The stream of a snapshot file.
pub type Parts = Pin<Box<dyn futures::Stream<Item = Part> + Send>>;

/// Starts saving. Whoever drops the stream ends it.
pub async fn save(core: &Core) -> Result<Parts, NodeError> {
    let place = Arc::clone(&core.saves).try_acquire_owned();
    let place = place.map_err(|_| {
        let actual = (SAVES_MAX + 1).to_string();
        overloaded("snapshots that are saved", SAVES_MAX.to_string(), actual)
    })?;
    let saving = snapshot_file::stream(core, RECEIVER_PATIENCE, place).await;
    let saving = saving.map_err(failed)?;
    let (rows, rows_estimated) = (saving.rows, saving.rows_estimated);
    let parts = ReceiverStream::new(saving.pieces).map(move |data| {
        Ok(v1::SnapshotPart {
            data,
            rows: rows.load(Ordering::Relaxed),
            rows_estimated,
        })
    });
    // A task of its own: a receiver that takes nothing never asks how it ended.
    let ended = tokio::spawn(async move {
        let written = saving.written.await.map_err(std::io::Error::other);
        written.map_err(FileError::from).flatten().map_err(told)
    });
    let end = futures::stream::once(ended).filter_map(async |ended| match ended {
        Ok(written) => written.err().map(|error| Err(error.into())),
        Err(error) => Some(Err(failed(std::io::Error::other(error).into()).into())),
    });
    Ok(Box::pin(parts.chain(end)))
}

fn told(error: FileError) -> NodeError {
    match &error {
        // One who has gone away needs no error.
        FileError::Io(error) if error.kind() == ErrorKind::BrokenPipe => {}
        FileError::Unsound(error) => tracing::warn!(%error, "a snapshot was not saved"),
        error => tracing::error!(%error, "a snapshot was not saved"),
    }
    failed(error)
}

fn failed(error: FileError) -> NodeError {
    match error {
        FileError::Unsound(error) => error,
        error => NodeError::Stopped {
            message: format!("the snapshot was not saved: {error}"),
        },
    }
}
