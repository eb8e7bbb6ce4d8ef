//! Process records: registering, appending, completing, reading, following.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::process::{
    Answer, Append, Appended, Complete, Completed, CountEvents, Event, Events, Get, Grant,
    GrantsOf, GrantsTo, HasGrant, List, ProcessState, ProcessView, Query, Register, Registered,
    Selection,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Answer as AnyAnswer, Name, Query as AnyQuery, Refusal, Subject};

use crate::client::Client;
use crate::error::ClientError;
use crate::lease::wrong_answer;
use crate::transport::WatchWhat;
use crate::watch::Watch;

/// One process record; see [`Client::process`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProcessClient {
    client: Client,
    id: Name,
}

impl Client {
    /// The process `id`. Refuses what is no name.
    pub fn process(&self, id: impl Into<String>) -> Result<ProcessClient, ClientError> {
        Ok(ProcessClient {
            client: self.clone(),
            id: Name::parse("process", id)?,
        })
    }

    /// One page of process records.
    pub async fn process_list(&self, list: List) -> Result<Page<ProcessView>, ClientError> {
        match self.process_query(Query::List(list), 0).await? {
            Answer::List(page) => Ok(page),
            _ => Err(wrong_answer("process.list")),
        }
    }

    /// One page of a process's events; none if there is no such process.
    pub async fn process_events(&self, events: Events) -> Result<Option<Page<Event>>, ClientError> {
        self.process_events_at(events, 0).await
    }

    pub(crate) async fn process_events_at(
        &self,
        events: Events,
        min_index: u64,
    ) -> Result<Option<Page<Event>>, ClientError> {
        match self.process_query(Query::Events(events), min_index).await? {
            Answer::Events(page) => Ok(page),
            _ => Err(wrong_answer("process.events")),
        }
    }

    /// How many events of one type a process has; none if there is no such process.
    pub async fn process_count_events(
        &self,
        count: CountEvents,
    ) -> Result<Option<u64>, ClientError> {
        match self.process_query(Query::CountEvents(count), 0).await? {
            Answer::CountEvents(count) => Ok(count),
            _ => Err(wrong_answer("process.count_events")),
        }
    }

    /// One page of what a scope may use.
    pub async fn process_grants_to(
        &self,
        grants: GrantsTo,
    ) -> Result<Page<(Grant, ProcessView)>, ClientError> {
        match self.process_query(Query::GrantsTo(grants), 0).await? {
            Answer::GrantsTo(page) => Ok(page),
            _ => Err(wrong_answer("process.grants_to")),
        }
    }

    /// One page of who may use a process; none if there is no such process.
    pub async fn process_grants_of(
        &self,
        grants: GrantsOf,
    ) -> Result<Option<Page<Grant>>, ClientError> {
        match self.process_query(Query::GrantsOf(grants), 0).await? {
            Answer::GrantsOf(page) => Ok(page),
            _ => Err(wrong_answer("process.grants_of")),
        }
    }

    /// Whether a scope may use a process.
    pub async fn process_has_grant(&self, has: HasGrant) -> Result<bool, ClientError> {
        match self.process_query(Query::HasGrant(has), 0).await? {
            Answer::HasGrant(has) => Ok(has),
            _ => Err(wrong_answer("process.has_grant")),
        }
    }

    pub(crate) async fn process_get_at(
        &self,
        id: &Name,
        min_index: u64,
    ) -> Result<Option<ProcessView>, ClientError> {
        let get = Query::Get(Get { id: id.clone() });
        match self.process_query(get, min_index).await? {
            Answer::Get(view) => Ok(view),
            _ => Err(wrong_answer("process.get")),
        }
    }

    async fn process_query(&self, query: Query, min_index: u64) -> Result<Answer, ClientError> {
        match self
            .query_at(AnyQuery::Process(query), min_index)
            .await?
            .answer
        {
            AnyAnswer::Process(answer) => Ok(answer),
            _ => Err(wrong_answer("a process query")),
        }
    }
}

impl ProcessClient {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// Makes the record, or finds it there with the same definition.
    pub async fn register(
        &self,
        definition: impl Into<Vec<u8>>,
    ) -> Result<Registered, ClientError> {
        let register = Register::new(self.id.clone(), definition.into());
        self.client.execute(register).await
    }

    /// Appends an event. With a `key` it is stored once however often it is appended; without one,
    /// once for each call.
    pub async fn append(
        &self,
        event_type: &Name,
        key: Option<&Name>,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Appended, ClientError> {
        let append = Append {
            key: key.cloned(),
            ..Append::new(self.id.clone(), event_type.clone(), payload.into())
        };
        self.client.execute(append).await
    }

    /// Ends the process.
    pub async fn complete(
        &self,
        state: ProcessState,
        outcome: impl Into<Vec<u8>>,
    ) -> Result<Completed, ClientError> {
        let complete = Complete {
            id: self.id.clone(),
            state,
            outcome: outcome.into(),
        };
        self.client.execute(complete).await
    }

    /// The record and its definition.
    pub async fn get(&self) -> Result<Option<ProcessView>, ClientError> {
        self.client.process_get_at(&self.id, 0).await
    }

    /// One page of events with a sequence above `after`; none if there is no such process. A
    /// `limit` of 0 is the most there may be.
    pub async fn events(&self, after: u64, limit: u32) -> Result<Option<Page<Event>>, ClientError> {
        self.events_at(after, limit, 0).await
    }

    async fn events_at(
        &self,
        after: u64,
        limit: u32,
        min_index: u64,
    ) -> Result<Option<Page<Event>>, ClientError> {
        let events = Events {
            id: self.id.clone(),
            after,
            only: Selection::All,
            limit,
        };
        self.client.process_events_at(events, min_index).await
    }

    /// Every event with a sequence above `after`, each once and in order, those to come included.
    /// The stream ends when the process has ended and its last event was given.
    ///
    /// It lives through reconnects and lost notices: notices only say that there is something to
    /// read. An error that the client's timeout did not outlast is an item of the stream; polling
    /// on goes on behind the last event. `NotFound` ends the stream.
    #[must_use]
    pub fn follow(&self, after: u64) -> BoxStream<'static, Result<Event, ClientError>> {
        let what = WatchWhat::Process(self.id.clone());
        let following = Following {
            watch: Watch::new(self.client.clone(), what),
            process: self.clone(),
            after,
            events: VecDeque::new(),
            over: false,
        };
        let next = |mut following: Following| async {
            following.next().await.map(|event| (event, following))
        };
        unfold(following, next).boxed()
    }
}

struct Following {
    process: ProcessClient,
    watch: Watch,
    /// Sequence of the last event read.
    after: u64,
    /// Read and not given yet.
    events: VecDeque<Event>,
    over: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.over = !error.is_passing();
                return Some(Err(error));
            }
        }
    }

    /// Reads the next page, or notes the end, or waits until there may be more.
    async fn advance(&mut self) -> Result<(), ClientError> {
        let client = &self.process.client;
        let index = self.watch.register(client.deadline()).await?;
        let page = self.process.events_at(self.after, 0, index).await?;
        let Some(page) = page else {
            return Err(self.not_found());
        };
        if let Some(last) = page.rows.last() {
            self.after = last.sequence;
            self.events = page.rows.into();
            return Ok(());
        }
        let view = client.process_get_at(&self.process.id, index).await?;
        let process = view.ok_or_else(|| self.not_found())?.process;
        if process.last_sequence > self.after {
            return Ok(());
        }
        if process.state.is_ended() {
            self.over = true;
            return Ok(());
        }
        // A look now and then costs little and bounds what a silent connection can hide.
        self.watch
            .changed(client.deadline(), |_: &Notice| true)
            .await;
        Ok(())
    }

    fn not_found(&self) -> ClientError {
        ClientError::Refused(Refusal::NotFound {
            subject: Subject::Process,
            name: self.process.id.to_string(),
        })
    }
}
