//! Snapshots in checked chunks, resumable: sender and receiver.
//!
//! The receiver says first what it has, so that a transfer that was interrupted goes on where it
//! stood. Nothing takes effect before all files are there and match the manifest.

use std::sync::Arc;

use futures::Stream;
use openraft::async_runtime::WatchReceiver;
use quorate_rpc::v1::peer_client::PeerClient;
use quorate_rpc::v1::snapshot_message::Message;
use quorate_rpc::v1::snapshot_reply::Reply;
use quorate_rpc::{NodeError, frame, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::wire;
use crate::core::Core;
use crate::quarantine;
use crate::raft::{Snapshot, Vote};
use crate::server::fatal;
use crate::storage::{Manifest, Receiver, SnapshotData};

/// Chunks that wait for the connection.
const CHUNKS_AHEAD: usize = 4;

type Messages = ReceiverStream<v1::SnapshotMessage>;

/// Sends a snapshot and answers the receiver's vote. With `resync` it was asked for.
pub async fn send(
    client: &mut PeerClient<Channel>,
    request: impl FnOnce(Messages) -> Request<Messages>,
    vote: Vote,
    data: SnapshotData,
    resync: bool,
) -> Result<Vote, NodeError> {
    let (tx, rx) = mpsc::channel(CHUNKS_AHEAD);
    let start = v1::SnapshotStart {
        vote: Some(wire::vote_out(&vote)),
        manifest: data.manifest().encode().into(),
        resync,
    };
    queue(&tx, Message::Start(start)).await?;
    let call = client.install_snapshot(request(ReceiverStream::new(rx)));
    let mut replies = call.await?.into_inner();
    let Some(Reply::Progress(progress)) = next(&mut replies).await? else {
        return Err(wire::bad(
            "snapshot reply",
            "is not the receiver's progress",
            "another",
        ));
    };
    send_files(&tx, data, progress).await?;
    queue(&tx, Message::Finish(true)).await?;
    match next(&mut replies).await? {
        Some(Reply::Vote(vote)) => wire::vote_in(Some(vote)),
        _ => Err(wire::bad(
            "snapshot reply",
            "is not the receiver's vote",
            "another",
        )),
    }
}

async fn next(replies: &mut Streaming<v1::SnapshotReply>) -> Result<Option<Reply>, NodeError> {
    Ok(replies.message().await?.and_then(|reply| reply.reply))
}

async fn queue(tx: &mpsc::Sender<v1::SnapshotMessage>, message: Message) -> Result<(), NodeError> {
    let message = v1::SnapshotMessage {
        message: Some(message),
    };
    let sent = tx.send(message).await;
    sent.map_err(|_| NodeError::OutcomeUnknown {
        message: "the receiver of the snapshot closed the stream".to_owned(),
    })
}

async fn send_files(
    tx: &mpsc::Sender<v1::SnapshotMessage>,
    data: SnapshotData,
    from: v1::SnapshotProgress,
) -> Result<(), NodeError> {
    let files = data.manifest().files.clone();
    for (number, file) in (0u32..).zip(files).skip(from.file as usize) {
        let mut offset = if number == from.file { from.offset } else { 0 };
        while offset < file.size {
            let (source, name) = (data.clone(), file.name.clone());
            let read = move || source.read_chunk(&name, offset, frame::SNAPSHOT_CHUNK_BYTES);
            let chunk = blocking(read).await?.map_err(|error| fatal(&error))?;
            let sent = chunk.bytes.len() as u64;
            let chunk = v1::SnapshotChunk {
                file: number,
                offset,
                data: chunk.bytes,
                crc32c: chunk.crc,
            };
            queue(tx, Message::Chunk(chunk)).await?;
            offset += sent;
        }
    }
    Ok(())
}

/// Receives a snapshot and installs it.
pub fn receive(
    core: Arc<Core>,
    messages: Streaming<v1::SnapshotMessage>,
) -> impl Stream<Item = Result<v1::SnapshotReply, Status>> + Send + 'static {
    let (tx, rx) = mpsc::channel(1);
    tokio::spawn(async move {
        let taken = tokio::select! {
            taken = take(&core, messages, &tx) => taken,
            // Who sent it has given up, or this node stops.
            () = tx.closed() => return,
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "a snapshot was not received");
            let _ = tx.send(Err(error.into())).await;
        }
    });
    ReceiverStream::new(rx)
}

async fn take(
    core: &Core,
    mut messages: Streaming<v1::SnapshotMessage>,
    replies: &mpsc::Sender<Result<v1::SnapshotReply, Status>>,
) -> Result<(), NodeError> {
    let Some(Message::Start(start)) = message(&mut messages).await? else {
        return Err(wire::bad(
            "snapshot",
            "does not begin with its manifest",
            "another",
        ));
    };
    let vote = wire::vote_in(start.vote)?;
    let manifest = Manifest::decode(&start.manifest)
        .map_err(|error| wire::bad("manifest", "cannot be read", &error.to_string()))?;
    let (dir, of) = (core.snapshots.clone(), manifest.clone());
    let made = blocking(move || Receiver::new(&dir, of)).await?;
    let mut receiver = made.map_err(|error| fatal(&error))?;
    answer(replies, Reply::Progress(progress(&receiver, &manifest))).await?;
    loop {
        match message(&mut messages).await? {
            Some(Message::Chunk(chunk)) => {
                receiver = take_chunk(receiver, &manifest, chunk).await?
            }
            Some(Message::Finish(_)) => break,
            Some(Message::Start(_)) => {
                return Err(wire::bad("snapshot", "has two manifests", "another"));
            }
            None => {
                return Err(wire::bad(
                    "snapshot",
                    "ends before it is whole",
                    "end of stream",
                ));
            }
        }
    }
    let finished = blocking(move || receiver.finish()).await?;
    let data = finished.map_err(|error| wire::bad("snapshot", &error.to_string(), "see there"))?;
    let (data, sound) = blocking(move || {
        // Raft stops a node that fails to install a snapshot, and who has sent it may be the one
        // whose disk is damaged.
        let sound = data.check_rows();
        (data, sound)
    })
    .await?;
    sound.map_err(|error| wire::bad("snapshot", &error.to_string(), "as it was sent"))?;
    let vote = if start.resync {
        quarantine::rebuild(core, data).await?;
        core.raft().metrics().borrow_watched().vote
    } else {
        let snapshot = Snapshot {
            meta: manifest.meta.clone(),
            snapshot: data,
        };
        let installed = core.raft().install_full_snapshot(vote, snapshot).await;
        installed.map_err(|error| fatal(&error))?.vote
    };
    answer(replies, Reply::Vote(wire::vote_out(&vote))).await
}

async fn take_chunk(
    mut receiver: Receiver,
    manifest: &Manifest,
    chunk: v1::SnapshotChunk,
) -> Result<Receiver, NodeError> {
    let Some(file) = manifest.files.get(chunk.file as usize) else {
        return Err(wire::bad(
            "file",
            "is not in the manifest",
            &chunk.file.to_string(),
        ));
    };
    let name = file.name.clone();
    let (receiver, taken) = blocking(move || {
        let taken = receiver.write_chunk(&name, chunk.offset, &chunk.data, chunk.crc32c);
        (receiver, taken)
    })
    .await?;
    taken.map_err(|error| wire::bad("chunk", &error.to_string(), "see there"))?;
    Ok(receiver)
}

fn progress(receiver: &Receiver, manifest: &Manifest) -> v1::SnapshotProgress {
    let position = receiver.next().and_then(|(name, offset)| {
        let file = manifest.files.iter().position(|file| file.name == name)?;
        Some((file, offset))
    });
    let (file, offset) = position.unwrap_or((manifest.files.len(), 0));
    v1::SnapshotProgress {
        file: u32::try_from(file).unwrap_or(u32::MAX),
        offset,
    }
}

async fn message(
    messages: &mut Streaming<v1::SnapshotMessage>,
) -> Result<Option<Message>, NodeError> {
    Ok(messages
        .message()
        .await?
        .and_then(|message| message.message))
}

async fn answer(
    replies: &mpsc::Sender<Result<v1::SnapshotReply, Status>>,
    reply: Reply,
) -> Result<(), NodeError> {
    let reply = v1::SnapshotReply { reply: Some(reply) };
    let sent = replies.send(Ok(reply)).await;
    sent.map_err(|_| NodeError::OutcomeUnknown {
        message: "the sender of the snapshot has gone".to_owned(),
    })
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NodeError> {
    crate::blocking::blocking(work)
        .await
        .map_err(|error| fatal(&error))
}
