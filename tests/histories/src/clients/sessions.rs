//! Clients that move the head of one session, each from the revision that it has read.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use quorate_statemachine::lease::{Claim, Claimed, Observed, SameOwner};
use quorate_statemachine::session::{
    Commit, Content, Get, GraphDelta, Open, SessionRef, execution_lease,
};
use quorate_statemachine::{LeaseToken, Name, Owner, Refusal};

use super::{LAST_WORD_MAX, Seat, Shared, Told};
use crate::models::sessions::{Head, Step};

/// The session, and the execution lease under which all of them commit: what is looked at is the
/// order of commits, not who may commit.
#[derive(Clone)]
pub(super) struct Common {
    session: SessionRef,
    lane: Name,
    execution: Observed,
}

/// An hour: longer than the key is worked on.
const EXECUTION_TTL_MS: u64 = 3_600_000;

/// Opens the session and takes its execution lease; none if that could not be done.
pub(super) async fn prepare(shared: &Arc<Shared>, key: &str) -> Result<Option<Common>> {
    let client = shared.client()?.with_timeout(LAST_WORD_MAX);
    let name = Name::parse("session", key.replace('/', "-"))?;
    let open = Open {
        name: name.clone(),
        note: None,
    };
    let Ok(opened) = client.execute(open).await else {
        return Ok(None);
    };
    let session = SessionRef {
        name: name.clone(),
        id: opened.id,
    };
    let lane = Name::parse("lane", "main")?;
    let claim = Claim {
        key: execution_lease(&session, &lane)?,
        owner: Owner::new(name.clone(), name),
        lease_token: LeaseToken::parse(format!("s{}", shared.number()))?,
        ttl_ms: EXECUTION_TTL_MS,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    let Ok(Claimed::Granted(lease)) = client.execute(claim).await else {
        return Ok(None);
    };
    let execution = Observed {
        owner_id: lease.owner.owner_id,
        incarnation_id: lease.owner.incarnation_id,
        lease_token: lease.lease_token,
        fencing_token: lease.fencing_token,
    };
    Ok(Some(Common {
        session,
        lane,
        execution,
    }))
}

/// Works on the session until its time is over, or until an operation has no known outcome.
pub(super) async fn sit(seat: &mut Seat, common: &Common) -> Result<()> {
    let mut known = Head::default();
    while seat.next().await {
        let stays = match seat.random.u8(0..2) {
            0 => read(seat, common, &mut known).await,
            _ => commit(seat, common, &mut known).await,
        };
        if !stays {
            break;
        }
    }
    Ok(())
}

async fn commit(seat: &mut Seat, common: &Common, known: &mut Head) -> bool {
    let to = Head {
        revision: known.revision + 1,
        value: seat.shared.number(),
    };
    let commit = Commit {
        session: common.session.clone(),
        lane: common.lane.clone(),
        turn: None,
        execution: Some(common.execution.clone()),
        expected_revision: Some(known.revision),
        graph: GraphDelta::Append(Vec::new()),
        leaf: None,
        state: Content::Inline(Bytes::from(to.value.to_string())),
        roots: Vec::new(),
        usage: Vec::new(),
        work: Vec::new(),
        inputs: Vec::new(),
        interrupted: None,
        attachments: Vec::new(),
        result: Bytes::new(),
        release: None,
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(commit).await);
    let log = &seat.shared.recorder.sessions;
    match told {
        Told::Answer(committed) if committed.revision == to.revision => {
            *known = to;
            seat.wrote(log, call, Step::Committed(to));
        }
        Told::Answer(committed) => seat.odd("commit", &committed),
        Told::Refused(Refusal::Moved { .. }) => {
            seat.wrote(log, call, Step::Moved(known.revision));
        }
        Told::Refused(refusal) => seat.odd("commit", &refusal),
        Told::NotDone => {}
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveCommitted(to));
            return false;
        }
    }
    true
}

async fn read(seat: &mut Seat, common: &Common, known: &mut Head) -> bool {
    let get = Get {
        name: common.session.name.clone(),
    };
    let call = seat.now();
    let told = seat.told(seat.client.session_get(get).await);
    let log = &seat.shared.recorder.sessions;
    match told {
        Told::Answer(Some(view)) => {
            let head = view.head.map_or(Some(Head::default()), |(head, _)| {
                let Content::Inline(state) = &head.state else {
                    return None;
                };
                Some(Head {
                    revision: head.revision,
                    value: std::str::from_utf8(state).ok()?.parse().ok()?,
                })
            });
            match head {
                Some(head) => {
                    *known = head;
                    seat.noted(log, call, Step::Read(head));
                }
                None => seat.odd("read", &"a state that nobody committed"),
            }
        }
        Told::Answer(None) => seat.odd("read", &"the session is gone"),
        Told::Refused(refusal) => seat.odd("read", &refusal),
        Told::NotDone | Told::Unknown => {}
    }
    true
}
