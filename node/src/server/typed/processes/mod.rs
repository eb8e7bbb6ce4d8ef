//! `quorate.v1.Processes`.

mod wire;

use quorate_client::WatchWhat;
use quorate_rpc::v1;
use quorate_rpc::v1::processes_server::Processes;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::process::{
    self, AckWake, Append, Complete, CountEvents, DeleteGrant, DetachSession, Event, Events, Get,
    GrantsOf, GrantsTo, HasGrant, List, MoveGrants, ProcessView, PutGrant, Query, Register,
    SetExternalRef, SetWait,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Answer as Found, Name, Query as AnyQuery, Subject};
use tonic::{Request, Status};

use self::wire::{
    awaited, ending, event_wire, final_state, grant, grant_wire, granted_wire, position,
    position_wire, process_wire, selection, state, view_wire, wake_target,
};
use super::news::News;
use super::{
    Answer, Call, Typed, after, name, not_found, numbered, optional_name, preconditions, rows,
    wrong_kind,
};

/// Of which moment an answer is.
struct Seen {
    index: u64,
    now_ms: u64,
}

/// Answers a query about processes.
async fn ask(
    call: &Call,
    query: Query,
    read: Option<v1::ReadOptions>,
) -> Result<(process::Answer, Seen), Status> {
    let found = call.read(AnyQuery::Process(query), read).await?;
    let seen = Seen {
        index: found.index,
        now_ms: found.now.0,
    };
    match found.answer {
        Found::Process(answer) => Ok((answer, seen)),
        _ => Err(wrong_kind()),
    }
}

async fn get(
    call: &Call,
    id: &Name,
    read: Option<v1::ReadOptions>,
) -> Result<(Option<ProcessView>, Seen), Status> {
    match ask(call, Query::Get(Get { id: id.clone() }), read).await? {
        (process::Answer::Get(view), seen) => Ok((view, seen)),
        _ => Err(wrong_kind()),
    }
}

async fn events(
    call: &Call,
    events: Events,
    read: Option<v1::ReadOptions>,
) -> Result<(Page<Event>, Seen), Status> {
    let id = events.id.clone();
    match ask(call, Query::Events(events), read).await? {
        (process::Answer::Events(Some(page)), seen) => Ok((page, seen)),
        (process::Answer::Events(None), _) => Err(not_found(Subject::Process, &id)),
        _ => Err(wrong_kind()),
    }
}

#[tonic::async_trait]
impl Processes for Typed {
    async fn register(
        &self,
        request: Request<v1::RegisterProcessRequest>,
    ) -> Answer<v1::RegisterProcessReply> {
        let (call, asked) = self.call(request).await?;
        let register = Register {
            wake_target: asked.wake_target.map(wake_target).transpose()?,
            ..Register::new(name("id", asked.id)?, asked.definition.into())
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, registered) = call.execute_if(only_if, register, asked.request_id).await?;
        Ok(v1::RegisterProcessReply {
            process: Some(process_wire(registered.process)),
            existed: registered.existed,
            index,
        }
        .into())
    }

    async fn append(
        &self,
        request: Request<v1::AppendEventRequest>,
    ) -> Answer<v1::AppendEventReply> {
        let (call, asked) = self.call(request).await?;
        let append = Append {
            id: name("id", asked.id)?,
            event_type: name("event_type", asked.event_type)?,
            key: optional_name("key", asked.key)?,
            payload: asked.payload.into(),
            wakes: asked.wakes,
            after_end: asked.after_end,
            ends: asked.ends.map(ending).transpose()?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, appended) = call.execute_if(only_if, append, asked.request_id).await?;
        Ok(v1::AppendEventReply {
            sequence: appended.sequence,
            at_ms: appended.at.0,
            duplicate: appended.duplicate,
            process: Some(process_wire(appended.process)),
            index,
        }
        .into())
    }

    async fn set_wait(&self, request: Request<v1::SetWaitRequest>) -> Answer<v1::SetWaitReply> {
        let (call, asked) = self.call(request).await?;
        let set = SetWait {
            id: name("id", asked.id)?,
            wait: asked.wait.map(Into::into),
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, set) = call.execute_if(only_if, set, asked.request_id).await?;
        let process = Some(process_wire(set.process));
        Ok(v1::SetWaitReply { process, index }.into())
    }

    async fn set_external_ref(
        &self,
        request: Request<v1::SetExternalRefRequest>,
    ) -> Answer<v1::SetExternalRefReply> {
        let (call, asked) = self.call(request).await?;
        let set = SetExternalRef {
            id: name("id", asked.id)?,
            external_ref: asked.external_ref.into(),
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, set) = call.execute_if(only_if, set, asked.request_id).await?;
        Ok(v1::SetExternalRefReply {
            process: Some(process_wire(set.process)),
            existed: set.existed,
            index,
        }
        .into())
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteProcessRequest>,
    ) -> Answer<v1::CompleteProcessReply> {
        let (call, asked) = self.call(request).await?;
        let complete = Complete {
            state: final_state("state", asked.state())?,
            id: name("id", asked.id)?,
            outcome: asked.outcome.into(),
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, completed) = call.execute_if(only_if, complete, asked.request_id).await?;
        Ok(v1::CompleteProcessReply {
            process: Some(process_wire(completed.process)),
            existed: completed.existed,
            index,
        }
        .into())
    }

    async fn ack_wake(&self, request: Request<v1::AckWakeRequest>) -> Answer<v1::AckWakeReply> {
        let (call, asked) = self.call(request).await?;
        let ack = AckWake {
            id: name("id", asked.id)?,
            sequence: asked.sequence,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, acked) = call.execute_if(only_if, ack, asked.request_id).await?;
        let was_pending = acked.was_pending;
        Ok(v1::AckWakeReply { was_pending, index }.into())
    }

    async fn get(&self, request: Request<v1::GetProcessRequest>) -> Answer<v1::GetProcessReply> {
        let (call, asked) = self.call(request).await?;
        let (view, Seen { index, now_ms }) = get(&call, &name("id", asked.id)?, asked.read).await?;
        Ok(v1::GetProcessReply {
            process: view.map(view_wire),
            index,
            now_ms,
        }
        .into())
    }

    async fn list(
        &self,
        request: Request<v1::ListProcessesRequest>,
    ) -> Answer<v1::ListProcessesReply> {
        let (call, asked) = self.call(request).await?;
        let list = Query::List(List {
            state: state(asked.state()),
            prefix: asked.prefix,
            after: after(asked.after)?,
            limit: asked.limit,
        });
        let (process::Answer::List(page), Seen { index, now_ms }) =
            ask(&call, list, asked.read).await?
        else {
            return Err(wrong_kind());
        };
        let (processes, next) = rows(page, view_wire);
        Ok(v1::ListProcessesReply {
            processes,
            next,
            index,
            now_ms,
        }
        .into())
    }

    async fn events(
        &self,
        request: Request<v1::ProcessEventsRequest>,
    ) -> Answer<v1::ProcessEventsReply> {
        let (call, asked) = self.call(request).await?;
        let wanted = Events {
            id: name("id", asked.id)?,
            after: asked.after,
            only: selection(asked.only)?,
            limit: asked.limit,
        };
        let (page, Seen { index, now_ms }) = events(&call, wanted, asked.read).await?;
        let (events, next) = numbered(page, event_wire)?;
        Ok(v1::ProcessEventsReply {
            events,
            next,
            index,
            now_ms,
        }
        .into())
    }

    async fn count_events(
        &self,
        request: Request<v1::CountEventsRequest>,
    ) -> Answer<v1::CountEventsReply> {
        let (call, asked) = self.call(request).await?;
        let id = name("id", asked.id)?;
        let count = Query::CountEvents(CountEvents {
            id: id.clone(),
            event_type: name("event_type", asked.event_type)?,
            through: asked.through.unwrap_or(u64::MAX),
        });
        let (process::Answer::CountEvents(count), Seen { index, now_ms }) =
            ask(&call, count, asked.read).await?
        else {
            return Err(wrong_kind());
        };
        let count = count.ok_or_else(|| not_found(Subject::Process, &id))?;
        Ok(v1::CountEventsReply {
            count,
            index,
            now_ms,
        }
        .into())
    }

    async fn await_end(&self, request: Request<v1::AwaitEndRequest>) -> Answer<v1::AwaitEndReply> {
        let (call, asked) = self.call(request).await?;
        let id = name("id", asked.id)?;
        let mut news = News::of(&call, WatchWhat::Process(id.clone()))?;
        let ended = |notice: &Notice| matches!(notice, Notice::ProcessChanged { ended: true, .. });
        loop {
            let (view, Seen { index, now_ms }) = get(&call, &id, None).await?;
            let view = view.ok_or_else(|| not_found(Subject::Process, &id))?;
            if view.process.state.is_ended() || !news.heard(call.last_look, ended).await? {
                return Ok(v1::AwaitEndReply {
                    process: Some(view_wire(view)),
                    index,
                    now_ms,
                }
                .into());
            }
        }
    }

    async fn await_event(
        &self,
        request: Request<v1::AwaitEventRequest>,
    ) -> Answer<v1::AwaitEventReply> {
        let (call, asked) = self.call(request).await?;
        let first = Events {
            id: name("id", asked.id)?,
            after: asked.after,
            only: awaited(asked.only)?,
            limit: 1,
        };
        let mut news = News::of(&call, WatchWhat::Process(first.id.clone()))?;
        let appended = |notice: &Notice| matches!(notice, Notice::EventAppended { .. });
        loop {
            let (page, Seen { index, now_ms }) = events(&call, first.clone(), None).await?;
            let event = page.rows.into_iter().next().map(event_wire);
            if event.is_some() || !news.heard(call.last_look, appended).await? {
                return Ok(v1::AwaitEventReply {
                    event,
                    index,
                    now_ms,
                }
                .into());
            }
        }
    }

    async fn put_grant(&self, request: Request<v1::PutGrantRequest>) -> Answer<v1::PutGrantReply> {
        let (call, asked) = self.call(request).await?;
        let put = PutGrant {
            grant: grant(asked.grant)?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, put) = call.execute_if(only_if, put, asked.request_id).await?;
        let existed = put.existed;
        Ok(v1::PutGrantReply { existed, index }.into())
    }

    async fn delete_grant(
        &self,
        request: Request<v1::DeleteGrantRequest>,
    ) -> Answer<v1::DeleteGrantReply> {
        let (call, asked) = self.call(request).await?;
        let delete = DeleteGrant {
            scope: name("scope", asked.scope)?,
            process_id: name("process_id", asked.process_id)?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, deleted) = call.execute_if(only_if, delete, asked.request_id).await?;
        let existed = deleted.existed;
        Ok(v1::DeleteGrantReply { existed, index }.into())
    }

    async fn move_grants(
        &self,
        request: Request<v1::MoveGrantsRequest>,
    ) -> Answer<v1::MoveGrantsReply> {
        let (call, asked) = self.call(request).await?;
        let process_ids = asked.process_ids.into_iter();
        let process_ids = process_ids.map(|id| name("process_ids", id));
        let moving = MoveGrants {
            from: name("from_scope", asked.from_scope)?,
            to: name("to_scope", asked.to_scope)?,
            to_session: name("to_session", asked.to_session)?,
            process_ids: process_ids.collect::<Result<_, _>>()?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, moved) = call.execute_if(only_if, moving, asked.request_id).await?;
        let moved = moved.moved;
        Ok(v1::MoveGrantsReply { moved, index }.into())
    }

    async fn detach_session(
        &self,
        request: Request<v1::DetachSessionRequest>,
    ) -> Answer<v1::DetachSessionReply> {
        let (call, asked) = self.call(request).await?;
        let detach = DetachSession {
            session: name("session", asked.session)?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, detached) = call.execute_if(only_if, detach, asked.request_id).await?;
        Ok(v1::DetachSessionReply {
            grants: detached.revoked,
            orphaned: detached.orphaned.into_iter().map(Into::into).collect(),
            preserved: detached.preserved.into_iter().map(Into::into).collect(),
            wake_targets: detached.wake_targets,
            index,
        }
        .into())
    }

    async fn grants_to(&self, request: Request<v1::GrantsToRequest>) -> Answer<v1::GrantsToReply> {
        let (call, asked) = self.call(request).await?;
        let grants = Query::GrantsTo(GrantsTo {
            scope: name("scope", asked.scope)?,
            running: asked.running,
            after: after(asked.after)?,
            limit: asked.limit,
        });
        let (process::Answer::GrantsTo(page), Seen { index, now_ms }) =
            ask(&call, grants, asked.read).await?
        else {
            return Err(wrong_kind());
        };
        let (rows, next) = rows(page, granted_wire);
        Ok(v1::GrantsToReply {
            rows,
            next,
            index,
            now_ms,
        }
        .into())
    }

    async fn grants_of(&self, request: Request<v1::GrantsOfRequest>) -> Answer<v1::GrantsOfReply> {
        let (call, asked) = self.call(request).await?;
        let process_id = name("process_id", asked.process_id)?;
        let grants = Query::GrantsOf(GrantsOf {
            process_id: process_id.clone(),
            after: asked.after.map(position).transpose()?,
            limit: asked.limit,
        });
        let (process::Answer::GrantsOf(page), Seen { index, now_ms }) =
            ask(&call, grants, asked.read).await?
        else {
            return Err(wrong_kind());
        };
        let page = page.ok_or_else(|| not_found(Subject::Process, &process_id))?;
        let last = page.rows.last().filter(|_| page.next.is_some());
        Ok(v1::GrantsOfReply {
            next: last.map(position_wire),
            grants: page.rows.into_iter().map(grant_wire).collect(),
            index,
            now_ms,
        }
        .into())
    }

    async fn has_grant(&self, request: Request<v1::HasGrantRequest>) -> Answer<v1::HasGrantReply> {
        let (call, asked) = self.call(request).await?;
        let has = Query::HasGrant(HasGrant {
            scope: name("scope", asked.scope)?,
            process_id: name("process_id", asked.process_id)?,
        });
        let (process::Answer::HasGrant(granted), Seen { index, now_ms }) =
            ask(&call, has, asked.read).await?
        else {
            return Err(wrong_kind());
        };
        Ok(v1::HasGrantReply {
            granted,
            index,
            now_ms,
        }
        .into())
    }
}
