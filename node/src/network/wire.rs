//! Raft's messages as protobuf. Entries travel in the bytes in which the log stores them.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::InvalidArgument;

use crate::raft::{LogId, TypeConfig, Vote, log_id};
use crate::storage::{decode_entry, encode_entry};

pub fn log_id_out(id: Option<LogId>) -> Option<v1::LogId> {
    id.map(|id| v1::LogId {
        term: id.leader_id.term,
        index: id.index,
    })
}

pub fn log_id_in(id: Option<v1::LogId>) -> Option<LogId> {
    id.map(|id| log_id(id.term, id.index))
}

pub fn vote_out(vote: &Vote) -> v1::Vote {
    v1::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub fn vote_in(vote: Option<v1::Vote>) -> Result<Vote, NodeError> {
    let vote = vote.ok_or_else(|| bad("vote", "is missing", "none"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    })
}

pub fn append_out(request: AppendEntriesRequest<TypeConfig>) -> v1::AppendRequest {
    v1::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        prev_log_id: log_id_out(request.prev_log_id),
        leader_commit: log_id_out(request.leader_commit),
        entries: request.entries.iter().map(encode_entry).collect(),
    }
}

pub fn append_in(
    request: v1::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, NodeError> {
    let entries = request.entries.into_iter().map(|bytes| {
        decode_entry(bytes).map_err(|error| bad("entries", "cannot be read", &error.to_string()))
    });
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: log_id_in(request.prev_log_id),
        leader_commit: log_id_in(request.leader_commit),
        entries: entries.collect::<Result<_, _>>()?,
    })
}

pub fn append_reply_out(result: StreamAppendResult<TypeConfig>) -> v1::AppendReply {
    use v1::append_reply::Outcome;
    let mut reply = v1::AppendReply::default();
    match result {
        Ok(matching) => {
            reply.set_outcome(Outcome::Success);
            reply.log_id = log_id_out(matching);
        }
        Err(StreamAppendError::Conflict(at)) => {
            reply.set_outcome(Outcome::Conflict);
            reply.log_id = log_id_out(Some(at));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            reply.set_outcome(Outcome::HigherVote);
            reply.vote = Some(vote_out(&vote));
        }
    }
    reply
}

pub fn append_reply_in(
    reply: v1::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, NodeError> {
    use v1::append_reply::Outcome;
    Ok(match reply.outcome() {
        Outcome::Success => Ok(log_id_in(reply.log_id)),
        Outcome::Conflict => Err(StreamAppendError::Conflict(
            log_id_in(reply.log_id).ok_or_else(|| bad("log_id", "is missing", "none"))?,
        )),
        Outcome::HigherVote => Err(StreamAppendError::HigherVote(vote_in(reply.vote)?)),
        Outcome::Unspecified => return Err(bad("outcome", "is unknown", "0")),
    })
}

pub fn vote_request_out(request: VoteRequest<TypeConfig>, pre_vote: bool) -> v1::VoteRequest {
    v1::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last_log_id: log_id_out(request.last_log_id),
        pre_vote,
        leader_transfer: request.leadership_transfer,
    }
}

pub fn vote_request_in(request: v1::VoteRequest) -> Result<VoteRequest<TypeConfig>, NodeError> {
    let mut vote = VoteRequest::new(vote_in(request.vote)?, log_id_in(request.last_log_id));
    vote.leadership_transfer = request.leader_transfer;
    Ok(vote)
}

pub fn vote_reply_out(reply: VoteResponse<TypeConfig>) -> v1::VoteReply {
    v1::VoteReply {
        vote: Some(vote_out(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: log_id_out(reply.last_log_id),
    }
}

pub fn vote_reply_in(reply: v1::VoteReply) -> Result<VoteResponse<TypeConfig>, NodeError> {
    let (vote, last) = (vote_in(reply.vote)?, log_id_in(reply.last_log_id));
    Ok(VoteResponse::new(vote, last, reply.granted))
}

pub fn bad(field: &str, problem: &str, actual: &str) -> NodeError {
    let limit = "a message of a node of this release";
    NodeError::Invalid(InvalidArgument::new(field, problem, limit, actual))
}
