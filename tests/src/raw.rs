//! Calls that no client of ours would make: bytes that are no message, and single requests on the
//! streams, without retries and without checks before they are sent.

use anyhow::{Context, Result, anyhow};
use bytes::{Buf, BufMut, Bytes};
use quorate_rpc::v1::coordination_client::CoordinationClient;
use quorate_rpc::v1::{self, execute_reply, read_reply};
use quorate_rpc::{NodeError, frame};
use quorate_statemachine::{Answer, Refusal, Reply};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// What a node said to one request.
#[derive(Debug)]
pub enum Said<T> {
    /// An answer of the state machine, at a log index.
    Answer(u64, T),
    /// A refusal; index 0 if it was found before anything was proposed.
    Refused(u64, Refusal),
    /// The node cannot.
    Error(NodeError),
}

/// A connection to one address.
pub async fn connect(address: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?)
}

fn coordination(channel: Channel) -> CoordinationClient<Channel> {
    CoordinationClient::new(channel)
        .max_decoding_message_size(frame::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

/// Sends one command on a stream of its own.
pub async fn execute(channel: Channel, command: Vec<u8>, timeout_ms: u32) -> Result<Said<()>> {
    let request = v1::ExecuteRequest {
        id: 7,
        command: command.into(),
        timeout_ms,
        ..v1::ExecuteRequest::default()
    };
    let batch = v1::ExecuteBatch {
        requests: vec![request],
    };
    let replies = coordination(channel)
        .execute(futures::stream::iter([batch]))
        .await?;
    let mut replies = replies.into_inner();
    replies
        .message()
        .await?
        .and_then(|first| first.hello)
        .context("no hello")?;
    let message = replies
        .message()
        .await?
        .context("the stream ended without an answer")?;
    let reply = message
        .replies
        .into_iter()
        .next()
        .context("an empty message")?;
    anyhow::ensure!(reply.id == 7, "the answer is to request {}", reply.id);
    match reply.result.context("an empty answer")? {
        execute_reply::Result::Error(error) => Ok(Said::Error(error.into())),
        execute_reply::Result::Reply(bytes) => match Reply::decode(&bytes)?.0 {
            Ok(_) => Ok(Said::Answer(reply.index, ())),
            Err(refusal) => Ok(Said::Refused(reply.index, refusal)),
        },
    }
}

/// Sends one query on a stream of its own.
pub async fn read(channel: Channel, request: v1::ReadRequest) -> Result<Said<Answer>> {
    let batch = v1::ReadBatch {
        requests: vec![v1::ReadRequest { id: 7, ..request }],
    };
    let replies = coordination(channel)
        .read(futures::stream::iter([batch]))
        .await?;
    let mut replies = replies.into_inner();
    replies
        .message()
        .await?
        .and_then(|first| first.hello)
        .context("no hello")?;
    let message = replies
        .message()
        .await?
        .context("the stream ended without an answer")?;
    let reply = message
        .replies
        .into_iter()
        .next()
        .context("an empty message")?;
    match reply.result.context("an empty answer")? {
        read_reply::Result::Error(error) => Ok(Said::Error(error.into())),
        read_reply::Result::Answer(bytes) => Ok(Said::Answer(
            reply.index,
            Answer::decode(&bytes).map_err(|e| anyhow!("{e}"))?,
        )),
        read_reply::Result::Refusal(bytes) => match Reply::decode(&bytes)?.0 {
            Err(refusal) => Ok(Said::Refused(reply.index, refusal)),
            Ok(response) => Err(anyhow!("a query was answered {response:?}")),
        },
    }
}

/// Sends bytes as the one message of a call, whatever the call's type, and answers how it ended.
pub async fn call_with_bytes(
    channel: Channel,
    path: &'static str,
    metadata: &MetadataMap,
    bytes: Vec<u8>,
) -> Result<Option<Vec<u8>>, Status> {
    let mut grpc = Grpc::new(channel).max_encoding_message_size(usize::MAX);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(futures::stream::iter([bytes]));
    *request.metadata_mut() = metadata.clone();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let mut replies = grpc
        .streaming(request, path, BytesCodec)
        .await?
        .into_inner();
    let mut last = None;
    while let Some(reply) = replies.message().await? {
        last = Some(reply);
    }
    Ok(last)
}

/// Takes messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(Bytes::from(item));
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
