//! `quorate.v1.Watch`.

use std::pin::Pin;

use futures::{Stream, stream};
use quorate_client::WatchEvent;
use quorate_rpc::v1;
use quorate_rpc::v1::event::Event;
use quorate_rpc::v1::watch_server::Watch;
use quorate_statemachine::notice::Notice;
use tonic::{Request, Response, Status};

use super::leases::reason_wire;
use super::locks::end_wire;
use super::{Answer, Call, Typed, invalid};
use crate::access::Watching;
use crate::propose::stopped;
use crate::server::coordination::watch_what;

type Events = Pin<Box<dyn Stream<Item = Result<v1::Watched, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Typed {
    type WatchStream = Events;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Events> {
        let (call, asked) = self.call(request).await?;
        let what = watch_what(asked.what).map_err(invalid)?;
        let Call { core, guest, .. } = call;
        let watching = Watching::start(&core, guest, what, asked.from_index).await?;
        Ok(Response::new(Box::pin(stream::unfold(
            Some(watching),
            next,
        ))))
    }
}

/// The next message. The last one is `lagged`, or the status that the node stops or that the caller
/// may watch no longer.
async fn next(
    watching: Option<Watching>,
) -> Option<(Result<v1::Watched, Status>, Option<Watching>)> {
    let mut watching = watching?;
    match watching.next().await {
        Some(Ok(event)) => {
            let last = matches!(event, WatchEvent::Lagged { .. });
            Some((Ok(watched(event)), (!last).then_some(watching)))
        }
        Some(Err(error)) => Some((Err(error.into()), None)),
        None => Some((Err(stopped().into()), None)),
    }
}

fn watched(event: WatchEvent) -> v1::Watched {
    use v1::watched::Message;
    let message = match event {
        WatchEvent::Registered { index } => Message::RegisteredAt(index),
        WatchEvent::Notices { index, notices } => Message::Entry(v1::EntryEvents {
            index,
            events: notices.into_iter().filter_map(event_wire).collect(),
        }),
        WatchEvent::Lagged { resume_from } => Message::Lagged(v1::Lagged { resume_from }),
    };
    v1::Watched {
        message: Some(message),
    }
}

/// None for what no watch is about.
fn event_wire(notice: Notice) -> Option<v1::Event> {
    let event = match notice {
        Notice::LeaseGranted {
            key,
            owner_id,
            fencing_token,
        } => Event::LeaseGranted(v1::LeaseGranted {
            key: key.into(),
            owner_id: owner_id.into(),
            fencing_token,
        }),
        Notice::LeaseEnded {
            key,
            owner_id,
            fencing_token,
            reason,
        } => {
            let (reason, by) = reason_wire(reason);
            Event::LeaseEnded(v1::LeaseEnded {
                key: key.into(),
                owner_id: owner_id.into(),
                fencing_token,
                reason: reason.into(),
                by,
            })
        }
        Notice::QueueReady { queue } => Event::QueueReady(v1::QueueReady {
            queue: queue.into(),
        }),
        Notice::ItemSettled { queue, item_id } => Event::ItemSettled(v1::ItemSettled {
            queue: queue.into(),
            item_id: item_id.0,
        }),
        Notice::EventAppended {
            process_id,
            sequence,
        } => Event::EventAppended(v1::EventAppended {
            process_id: process_id.into(),
            sequence,
        }),
        Notice::ProcessChanged { process_id, ended } => Event::ProcessChanged(v1::ProcessChanged {
            process_id: process_id.into(),
            ended,
        }),
        notice => lock_event(notice)?,
    };
    Some(v1::Event { event: Some(event) })
}

fn lock_event(notice: Notice) -> Option<Event> {
    Some(match notice {
        Notice::LockGranted {
            key,
            id,
            owner_id,
            fencing_token,
        } => Event::LockGranted(v1::LockGranted {
            key: key.into(),
            acquisition_id: id.to_vec().into(),
            owner_id: owner_id.into(),
            fencing_token,
        }),
        Notice::LockLeft {
            key,
            id,
            owner_id,
            end,
        } => Event::LockLeft(v1::LockLeft {
            key: key.into(),
            acquisition_id: id.to_vec().into(),
            owner_id: owner_id.into(),
            end: Some(end_wire(end)),
        }),
        Notice::LockProclaimed { key, fencing_token } => {
            Event::LockProclaimed(v1::LockProclaimed {
                key: key.into(),
                fencing_token,
            })
        }
        _ => return None,
    })
}
