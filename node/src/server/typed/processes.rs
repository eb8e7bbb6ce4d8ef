//! `quorate.v1.Processes`.

use quorate_client::WatchWhat;
use quorate_rpc::v1;
use quorate_rpc::v1::process_events_request::Only;
use quorate_rpc::v1::processes_server::Processes;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::process::{
    self, Append, Complete, Ending, Event, Events, Get, List, Process, ProcessState, ProcessView,
    Query, Register, Selection, SetWait,
};
use quorate_statemachine::{Answer as Found, Name, Query as AnyQuery, Subject};
use tonic::{Request, Status};

use super::news::News;
use super::{
    Answer, Call, Typed, after, missing, name, not_found, numbered, optional_name, preconditions,
    rows, wrong_kind,
};

fn process_wire(process: Process) -> v1::Process {
    let state = match process.state {
        ProcessState::Running => v1::ProcessState::Running,
        ProcessState::Succeeded => v1::ProcessState::Succeeded,
        ProcessState::Failed => v1::ProcessState::Failed,
        ProcessState::Cancelled => v1::ProcessState::Cancelled,
    };
    v1::Process {
        id: process.id.into(),
        state: state.into(),
        created_at_ms: process.created_at.0,
        updated_at_ms: process.updated_at.0,
        last_sequence: process.last_sequence,
        outcome: process.outcome.map(Into::into),
        external_ref: process.external_ref.map(Into::into),
        wait: process.wait.map(Into::into),
        definition: None,
    }
}

fn view_wire(view: ProcessView) -> v1::Process {
    v1::Process {
        definition: Some(view.definition.into()),
        ..process_wire(view.process)
    }
}

fn event_wire(event: Event) -> v1::ProcessEvent {
    v1::ProcessEvent {
        sequence: event.sequence,
        event_type: event.event_type.into(),
        at_ms: event.at.0,
        index: event.index,
        key: event.key.map_or(String::new(), Into::into),
        payload: event.payload.into(),
    }
}

fn state(wire: v1::ProcessState) -> Option<ProcessState> {
    match wire {
        v1::ProcessState::Unspecified => None,
        v1::ProcessState::Running => Some(ProcessState::Running),
        v1::ProcessState::Succeeded => Some(ProcessState::Succeeded),
        v1::ProcessState::Failed => Some(ProcessState::Failed),
        v1::ProcessState::Cancelled => Some(ProcessState::Cancelled),
    }
}

/// How a process is to end; whether that is an end is not decided here.
fn final_state(field: &str, wire: v1::ProcessState) -> Result<ProcessState, Status> {
    state(wire).ok_or_else(|| missing(field, "succeeded, failed or cancelled"))
}

fn ending(wire: v1::append_event_request::Ending) -> Result<Ending, Status> {
    Ok(Ending {
        state: final_state("ends.state", wire.state())?,
        outcome: wire.outcome.into(),
    })
}

fn selection(only: Option<Only>) -> Result<Selection, Status> {
    Ok(match only {
        None => Selection::All,
        Some(Only::Last(count)) => Selection::Last(count),
        Some(Only::EventType(of)) => Selection::OfType(name("event_type", of)?),
    })
}

async fn get(
    call: &Call,
    id: &Name,
    read: Option<v1::ReadOptions>,
) -> Result<(Option<ProcessView>, Seen), Status> {
    let query = AnyQuery::Process(Query::Get(Get { id: id.clone() }));
    let found = call.read(query, read).await?;
    let seen = Seen {
        index: found.index,
        now_ms: found.now.0,
    };
    match found.answer {
        Found::Process(process::Answer::Get(view)) => Ok((view, seen)),
        _ => Err(wrong_kind()),
    }
}

/// Of which moment an answer is.
struct Seen {
    index: u64,
    now_ms: u64,
}

#[tonic::async_trait]
impl Processes for Typed {
    async fn register(
        &self,
        request: Request<v1::RegisterProcessRequest>,
    ) -> Answer<v1::RegisterProcessReply> {
        let (call, asked) = self.call(request)?;
        let register = Register::new(name("id", asked.id)?, asked.definition.into());
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
        let (call, asked) = self.call(request)?;
        let (id, event_type) = (name("id", asked.id)?, name("event_type", asked.event_type)?);
        let append = Append {
            key: optional_name("key", asked.key)?,
            ends: asked.ends.map(ending).transpose()?,
            ..Append::new(id, event_type, asked.payload.into())
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
        let (call, asked) = self.call(request)?;
        let set = SetWait {
            id: name("id", asked.id)?,
            wait: asked.wait.map(Into::into),
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, set) = call.execute_if(only_if, set, asked.request_id).await?;
        let process = Some(process_wire(set.process));
        Ok(v1::SetWaitReply { process, index }.into())
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteProcessRequest>,
    ) -> Answer<v1::CompleteProcessReply> {
        let (call, asked) = self.call(request)?;
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

    async fn get(&self, request: Request<v1::GetProcessRequest>) -> Answer<v1::GetProcessReply> {
        let (call, asked) = self.call(request)?;
        let (view, found) = get(&call, &name("id", asked.id)?, asked.read).await?;
        Ok(v1::GetProcessReply {
            process: view.map(view_wire),
            index: found.index,
            now_ms: found.now_ms,
        }
        .into())
    }

    async fn list(
        &self,
        request: Request<v1::ListProcessesRequest>,
    ) -> Answer<v1::ListProcessesReply> {
        let (call, asked) = self.call(request)?;
        let list = List {
            state: state(asked.state()),
            prefix: asked.prefix,
            after: after(asked.after)?,
            limit: asked.limit,
        };
        let query = AnyQuery::Process(Query::List(list));
        let found = call.read(query, asked.read).await?;
        let Found::Process(process::Answer::List(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let (processes, next) = rows(page, view_wire);
        Ok(v1::ListProcessesReply {
            processes,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn events(
        &self,
        request: Request<v1::ProcessEventsRequest>,
    ) -> Answer<v1::ProcessEventsReply> {
        let (call, asked) = self.call(request)?;
        let id = name("id", asked.id)?;
        let events = Events {
            id: id.clone(),
            after: asked.after,
            only: selection(asked.only)?,
            limit: asked.limit,
        };
        let query = AnyQuery::Process(Query::Events(events));
        let found = call.read(query, asked.read).await?;
        let Found::Process(process::Answer::Events(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let page = page.ok_or_else(|| not_found(Subject::Process, &id))?;
        let (events, next) = numbered(page, event_wire)?;
        Ok(v1::ProcessEventsReply {
            events,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn await_end(&self, request: Request<v1::AwaitEndRequest>) -> Answer<v1::AwaitEndReply> {
        let (call, asked) = self.call(request)?;
        let id = name("id", asked.id)?;
        let mut news = News::of(&call, WatchWhat::Process(id.clone()))?;
        let ended = |notice: &Notice| matches!(notice, Notice::ProcessChanged { ended: true, .. });
        loop {
            let (view, found) = get(&call, &id, None).await?;
            let view = view.ok_or_else(|| not_found(Subject::Process, &id))?;
            if view.process.state.is_ended() || !news.heard(call.last_look, ended).await? {
                return Ok(v1::AwaitEndReply {
                    process: Some(view_wire(view)),
                    index: found.index,
                    now_ms: found.now_ms,
                }
                .into());
            }
        }
    }
}
