//! Sessions: reading them. What changes them is executed as it is ([`Client::execute`]).

use bytes::{Bytes, BytesMut};
use quorate_statemachine::limits::BLOBS_PER_COMMAND_MAX;
use quorate_statemachine::query::Page;
use quorate_statemachine::session::{
    Answer, Attachment, Attachments, BlobHash, Blobs, Content, Get, GraphPage, InputView, Inputs,
    List, Node, NodeOf, Nodes, Path, Query, SessionRef, SessionSummary, SessionView, WorkList,
    WorkView,
};
use quorate_statemachine::{Answer as AnyAnswer, Name, Query as AnyQuery};

use crate::client::Client;
use crate::error::ClientError;
use crate::lease::wrong_answer;

/// One query, and which answer it has.
macro_rules! queries {
    ($($(#[$doc:meta])* $name:ident($what:ty) => $variant:ident $answer:ty;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub async fn $name(&self, what: $what) -> Result<$answer, ClientError> {
                    match self.session_query(Query::$variant(what)).await? {
                        Answer::$variant(answer) => Ok(answer),
                        _ => Err(wrong_answer(stringify!($name))),
                    }
                }
            )*
        }
    };
}

queries! {
    /// One session with its head; none if there is no such session.
    session_get(Get) => Get Option<SessionView>;
    /// One page of sessions.
    session_list(List) => List Page<SessionSummary>;
    /// One page of a graph; none if there is no such session or graph (any more).
    session_nodes(Nodes) => Nodes Option<GraphPage<u64>>;
    /// One page of a node and those before it; none if there is no such session or graph.
    session_path(Path) => Path Option<GraphPage<Name>>;
    /// One node of a session's graph.
    session_node(NodeOf) => Node Option<Node>;
    /// Bytes of the first of some blobs; none if there is no such session.
    session_blobs(Blobs) => Blobs Option<Vec<Option<Bytes>>>;
    /// One page of queued work; none if there is no such session.
    session_work(WorkList) => Work Option<Page<WorkView>>;
    /// One page of inputs; none if there is no such session.
    session_inputs(Inputs) => Inputs Option<Page<InputView>>;
    /// One page of attachments that are not committed; none if there is no such session.
    session_attachments(Attachments) => Attachments Option<Page<Attachment>>;
}

impl Client {
    async fn session_query(&self, query: Query) -> Result<Answer, ClientError> {
        match self.query(AnyQuery::Session(query)).await?.answer {
            AnyAnswer::Session(answer) => Ok(answer),
            _ => Err(wrong_answer("a session query")),
        }
    }

    /// The bytes of a content; none if one of its blobs is not there (any more).
    pub async fn session_content(
        &self,
        session: &SessionRef,
        content: &Content,
    ) -> Result<Option<Bytes>, ClientError> {
        match content {
            Content::Inline(bytes) => Ok(Some(bytes.clone())),
            Content::Blobs { hashes, .. } => self.session_bytes(session, hashes).await,
        }
    }

    /// The bytes of blobs, one after the other; none if one of them is not there (any more).
    pub async fn session_bytes(
        &self,
        session: &SessionRef,
        hashes: &[BlobHash],
    ) -> Result<Option<Bytes>, ClientError> {
        let blobs = self.session_all_blobs(session, hashes).await?;
        let joined = |blobs: Vec<Bytes>| {
            let mut bytes = BytesMut::new();
            blobs.iter().for_each(|blob| bytes.extend_from_slice(blob));
            bytes.freeze()
        };
        Ok(blobs.map(joined))
    }

    /// The bytes of each of some blobs, in as few reads as they fit in; none if one of them is not
    /// there (any more).
    pub async fn session_all_blobs(
        &self,
        session: &SessionRef,
        hashes: &[BlobHash],
    ) -> Result<Option<Vec<Bytes>>, ClientError> {
        let mut blobs = Vec::with_capacity(hashes.len());
        while blobs.len() < hashes.len() {
            let wanted = &hashes[blobs.len()..];
            let some = wanted.len().min(BLOBS_PER_COMMAND_MAX);
            let asked = Blobs {
                session: session.clone(),
                hashes: wanted[..some].to_vec(),
            };
            let Some(found) = self.session_blobs(asked).await? else {
                return Ok(None);
            };
            if found.is_empty() || found.len() > some {
                return Err(wrong_answer("session_blobs"));
            }
            for blob in found {
                let Some(blob) = blob else {
                    return Ok(None);
                };
                blobs.push(blob);
            }
        }
        Ok(Some(blobs))
    }
}
