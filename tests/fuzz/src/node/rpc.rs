//! Target `rpc`: messages to every method of every service, on the port of clients and on that of
//! the nodes. The methods are those of the descriptors, so that a new one is called by itself.
//!
//! What a leader of the cluster may do to a member is no attack: a message of Raft comes with a
//! vote that is long over. So is what only the cluster itself may say.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_types::FileDescriptorSet;
use quorate_rpc::identity::Parties;
use quorate_rpc::v1;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::served::{self, Served};

/// What a call may take: some wait for something to happen, and some never end.
const CALL: Duration = Duration::from_millis(50);

/// Answers that are read of one call.
const ANSWERS_MAX: usize = 8;

/// A method that can be called.
pub struct Method {
    /// Of its path, so that an input means the same when there are more methods.
    pub key: u16,
    /// `/package.Service/Method`
    pub path: String,
    /// The type of its message.
    pub input: String,
}

/// All services, and those that come with the libraries.
pub static DESCRIPTORS: LazyLock<FileDescriptorSet> = LazyLock::new(|| {
    let sets = [
        quorate_rpc::ALL_DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let sets = sets.map(|set| FileDescriptorSet::decode(set).expect("descriptors"));
    let file = sets.into_iter().flat_map(|set| set.file).collect();
    FileDescriptorSet { file }
});

/// All methods.
pub static METHODS: LazyLock<Vec<Method>> = LazyLock::new(|| {
    let mut methods = Vec::new();
    for file in &DESCRIPTORS.file {
        for service in &file.service {
            for method in &service.method {
                let (service, name) = (service.name(), method.name());
                let path = format!("/{}.{service}/{name}", file.package());
                methods.push(Method {
                    key: key_of(&path),
                    path,
                    input: method.input_type().to_owned(),
                });
            }
        }
    }
    methods
});

/// FNV-1a, folded.
fn key_of(path: &str) -> u16 {
    let hash = path.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as u16 ^ hash as u16
}

/// Runs one input: two bytes say which method, one how it is called.
pub fn run(bytes: &[u8]) {
    let [low, high, how, message @ ..] = bytes else {
        return;
    };
    let key = u16::from_le_bytes([*low, *high]);
    let known = METHODS.iter().find(|method| method.key == key);
    let method = known.unwrap_or(&METHODS[usize::from(key) % METHODS.len()]);
    let (first, second) = match how & 8 {
        0 => (message, None),
        _ => {
            let (first, second) = message.split_at(message.len() / 2);
            (first, Some(second))
        }
    };
    let messages = [Some(first), second].into_iter().flatten();
    let messages: Vec<Bytes> = messages
        .map(|message| harmless(&method.path, message).into())
        .collect();
    served::with_node(async |node| {
        let called = tokio::time::timeout(2 * CALL, call(node, method, *how, messages));
        // How it ended is the caller's affair; that it lives is looked at next.
        let _ = called.await;
    });
}

async fn call(node: &Served, method: &Method, how: u8, messages: Vec<Bytes>) -> Result<(), Status> {
    let of_nodes = method.path.contains(".Peer/");
    let channel = if of_nodes { &node.peers } else { &node.clients };
    let mut request = Request::new(futures::stream::iter(messages));
    request.set_timeout(CALL);
    if how & 3 != 1 {
        let mut cluster_id = node.status.cluster_id.clone();
        if how & 3 == 2 {
            cluster_id.push('x');
        }
        let parties = Parties {
            cluster_id,
            from: 2,
            to: node.status.id,
        };
        parties.write(request.metadata_mut());
    }
    if how & 16 != 0 {
        let token = "Bearer q1_unknown_token"
            .parse()
            .expect("a value of a header");
        request.metadata_mut().insert("authorization", token);
    }
    let path: PathAndQuery = method.path.parse().expect("a path");
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut answers = grpc.streaming(request, path, AsTheyAre).await?.into_inner();
    for _ in 0..ANSWERS_MAX {
        if answers.message().await?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Takes from a message what none but the cluster itself may say.
fn harmless(path: &str, message: &[u8]) -> Vec<u8> {
    match path.rsplit_once(".Peer/").map(|(_, name)| name) {
        Some("Append") => edited(message, |it: &mut v1::AppendRequest| over(&mut it.vote)),
        Some("Vote") => edited(message, |it: &mut v1::VoteRequest| over(&mut it.vote)),
        Some("TransferLeader") => edited(message, |it: &mut v1::TransferLeaderRequest| {
            over(&mut it.from)
        }),
        Some("InstallSnapshot") => edited(message, |it: &mut v1::SnapshotMessage| {
            if let Some(v1::snapshot_message::Message::Start(start)) = &mut it.message {
                over(&mut start.vote);
            }
        }),
        _ => message.to_vec(),
    }
}

fn edited<T: Message + Default>(message: &[u8], edit: impl FnOnce(&mut T)) -> Vec<u8> {
    match T::decode(message) {
        Ok(mut read) => {
            edit(&mut read);
            read.encode_to_vec()
        }
        Err(_) => message.to_vec(),
    }
}

fn over(vote: &mut Option<v1::Vote>) {
    if let Some(vote) = vote {
        (vote.term, vote.node_id) = (0, 0);
    }
}

/// Messages as they are.
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_has_a_key_of_its_own() {
        let keys: BTreeSet<u16> = METHODS.iter().map(|method| method.key).collect();
        assert_eq!(keys.len(), METHODS.len());
        assert!(
            METHODS
                .iter()
                .any(|method| method.path == "/quorate.v1.Peer/Append")
        );
    }
}
