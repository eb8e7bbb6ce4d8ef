//! Every row of every table, decoded by its type.

use quorate_statemachine::codec;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::queue::ItemId;
use quorate_statemachine::tables::{
    Access, ClusterVersion, Due, DueKind, EventsByType, Grants, GrantsByProcess, GrantsBySession,
    LeaseEnded, LeaseHistory, Leases, LockMembers, LockOrder, LockOwners, Locks, Meta, MetaRow,
    PREFIX_BYTES, PendingWakes, ProcessDefinitions, ProcessEventKeys, ProcessEvents,
    ProcessSessions, Processes, ProcessesByState, QueueDead, QueueDedupe, QueueItems,
    QueuePayloads, QueueReady, Queues, REGISTRY, Requests, RequestsByAge, SessionGarbage, Sessions,
    Table, TokensByUser, VersionRow, WakeTargets, parse_due_key, split_name, tag_of,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Reply, Timestamp};

use crate::args::Bad;
use crate::{access, locks, print, processes, session_dump};

/// The rows of the tables named, or of all; then the digest.
pub fn dump(view: &MemoryView, tables: &[String]) -> Result<String, Bad> {
    if let Some(unknown) = tables
        .iter()
        .find(|name| REGISTRY.iter().all(|(_, n)| n != name))
    {
        return Err(format!("there is no table {unknown:?}").into());
    }
    let mut out = String::new();
    for (key, value) in view.rows() {
        let tag = tag_of(key).ok_or("a key is shorter than its prefix")?;
        let (_, table) = REGISTRY
            .iter()
            .find(|(t, _)| *t == tag)
            .ok_or("a key has no table")?;
        if tables.is_empty() || tables.iter().any(|name| name == table) {
            out += &format!("{table} {}\n", line(tag, key, value)?);
        }
    }
    Ok(format!("{out}digest {}", digest_of(view)))
}

/// The digest computed from all rows, as a check of the one that is kept up to date.
pub fn digest_of(view: &MemoryView) -> Digest {
    let mut digest = Digest::default();
    for (key, value) in view
        .rows()
        .filter(|(key, _)| tag_of(key) != Some(Meta::TAG))
    {
        digest.replace(key, None, Some(value));
    }
    digest
}

/// What a row of a table holds.
pub fn row<T: Table>(value: &[u8]) -> Result<T::Row, Bad> {
    Ok(codec::decode(T::TAG.into(), value)?)
}

fn line(tag: u8, key: &[u8], value: &[u8]) -> Result<String, Bad> {
    let own = &key[PREFIX_BYTES..];
    Ok(match tag {
        Meta::TAG => meta(&row::<Meta>(value)?),
        Due::TAG => {
            row::<Due>(value)?;
            due(key)?
        }
        Requests::TAG => {
            let row = row::<Requests>(value)?;
            let reply = print::reply(&Reply::decode(&row.reply)?);
            format!(
                "{} index={} at={} {reply}",
                id_text(own),
                row.index,
                row.at.0
            )
        }
        RequestsByAge::TAG => {
            let (at, bytes) = row::<RequestsByAge>(value)?;
            let (index, id) = own.split_at(8);
            format!(
                "{} id={} at={} bytes={bytes}",
                number(index)?,
                id_text(id),
                at.0
            )
        }
        ClusterVersion::TAG => {
            let VersionRow { version, held } = row::<ClusterVersion>(value)?;
            format!("version={version} held={held}")
        }
        Leases::TAG => print::lease_row(&row::<Leases>(value)?),
        LeaseHistory::TAG => {
            format!(
                "{} {}",
                name(own),
                print::history_row(&row::<LeaseHistory>(value)?)
            )
        }
        LeaseEnded::TAG => {
            let (key, token) =
                split_name(own).ok_or("an ended grant's key has no end of its name")?;
            let ended = print::ended(&row::<LeaseEnded>(value)?);
            format!("{} {} {ended}", name(key), number(token)?)
        }
        Queues::TAG..=QueueDead::TAG => queue_line(tag, own, value)?,
        Processes::TAG..=ProcessSessions::TAG => process_line(tag, own, value)?,
        Locks::TAG..=LockOwners::TAG => lock_line(tag, own, value)?,
        Sessions::TAG..=SessionGarbage::TAG => session_dump::line(tag, own, value)?,
        Access::TAG..=TokensByUser::TAG => access::line(tag, key, value)?,
        _ => return Err(format!("table {tag:#04x} has no decoder here").into()),
    })
}

fn queue_line(tag: u8, own: &[u8], value: &[u8]) -> Result<String, Bad> {
    if tag == Queues::TAG {
        return Ok(print::queue_row(&row::<Queues>(value)?));
    }
    let (queue, rest) = split_name(own).ok_or("a queue row's key has no end of its name")?;
    let queue = name(queue);
    Ok(match tag {
        QueueItems::TAG => format!("{queue} {}", print::item_row(&row::<QueueItems>(value)?)),
        QueuePayloads::TAG => {
            let payload = print::text(&row::<QueuePayloads>(value)?);
            format!(
                "{queue} {} {payload}",
                print::item_id(ItemId(number(rest)?))
            )
        }
        QueueReady::TAG => {
            let priority = !rest.first().ok_or("a ready key has no priority")?;
            let id = print::item_id(row::<QueueReady>(value)?);
            format!("{queue} priority={priority} {id}")
        }
        QueueDedupe::TAG => {
            let row = row::<QueueDedupe>(value)?;
            let (key, id) = (name(rest), print::item_id(row.item_id));
            format!("{queue} {key} {id} present={}", row.present)
        }
        QueueDead::TAG => format!("{queue} {}", print::item_id(row::<QueueDead>(value)?)),
        _ => return Err(format!("queue table {tag:#04x} has no decoder here").into()),
    })
}

fn process_line(tag: u8, own: &[u8], value: &[u8]) -> Result<String, Bad> {
    Ok(match tag {
        Processes::TAG => processes::row(&row::<Processes>(value)?),
        ProcessesByState::TAG => {
            row::<ProcessesByState>(value)?;
            let (state, id) = own.split_first().ok_or("a key has no state")?;
            format!("state={state} {}", name(id))
        }
        ProcessEvents::TAG => {
            let (process, _) = split_name(own).ok_or("an event's key has no process")?;
            format!(
                "{} {}",
                name(process),
                processes::event_row(&row::<ProcessEvents>(value)?)
            )
        }
        ProcessEventKeys::TAG => {
            let (process, key) = split_name(own).ok_or("an event's key has no process")?;
            let sequence = row::<ProcessEventKeys>(value)?;
            format!("{} {} sequence={sequence}", name(process), name(key))
        }
        ProcessDefinitions::TAG => {
            let definition = row::<ProcessDefinitions>(value)?;
            format!("{} {}", name(own), print::text(&definition))
        }
        Grants::TAG => processes::grant_row(&row::<Grants>(value)?),
        ProcessSessions::TAG => {
            let row = row::<ProcessSessions>(value)?;
            let (grants, wake_targets) = (row.grants, row.wake_targets);
            format!("{} grants={grants} wake_targets={wake_targets}", name(own))
        }
        _ => index_line(tag, own, value)?,
    })
}

/// A row of an index: its key says all.
fn index_line(tag: u8, own: &[u8], value: &[u8]) -> Result<String, Bad> {
    let (first, rest) = split_name(own).ok_or("a key of an index has one name only")?;
    let first = name(first);
    Ok(match tag {
        PendingWakes::TAG => {
            row::<PendingWakes>(value)?;
            format!("{first} sequence={}", number(rest)?)
        }
        EventsByType::TAG => {
            row::<EventsByType>(value)?;
            let (of, sequence) = split_name(rest).ok_or("an event's key has no type")?;
            format!("{first} {} sequence={}", name(of), number(sequence)?)
        }
        GrantsByProcess::TAG | GrantsBySession::TAG => {
            row::<GrantsByProcess>(value).or_else(|_| row::<GrantsBySession>(value))?;
            let (second, third) = split_name(rest).ok_or("a grant's key has two names")?;
            format!("{first} {} {}", name(second), name(third))
        }
        WakeTargets::TAG => {
            row::<WakeTargets>(value)?;
            format!("{first} {}", name(rest))
        }
        _ => return Err(format!("process table {tag:#04x} has no decoder here").into()),
    })
}

fn lock_line(tag: u8, own: &[u8], value: &[u8]) -> Result<String, Bad> {
    if tag == Locks::TAG {
        return Ok(locks::lock_row(&row::<Locks>(value)?));
    }
    let (first, rest) = split_name(own).ok_or("a key has no end of its name")?;
    let first = name(first);
    Ok(match tag {
        LockMembers::TAG => {
            format!("{first} {}", locks::member_row(&row::<LockMembers>(value)?))
        }
        LockOrder::TAG => {
            row::<LockOrder>(value)?;
            let (place, number_and_id) = rest.split_at(1);
            let (at, id) = number_and_id.split_at(8);
            let place = if place == [0] { "holder" } else { "waiter" };
            format!("{first} {place} {} {}", number(at)?, id_text(id))
        }
        LockOwners::TAG => {
            row::<LockOwners>(value)?;
            let (boot, rest) = split_name(rest).ok_or("a key has no incarnation")?;
            let (lock, id) = split_name(rest).ok_or("a key has no lock")?;
            format!("{first}/{} {} {}", name(boot), name(lock), id_text(id))
        }
        _ => return Err(format!("lock table {tag:#04x} has no decoder here").into()),
    })
}

/// Sessions are shown if there are any.
fn meta(row: &MetaRow) -> String {
    let sessions = match row.sessions {
        0 => String::new(),
        sessions => format!(" sessions={sessions}"),
    };
    format!(
        "now={} last_index={} fence_base={} cluster={:?} last_node_id={} requests={} \
         request_bytes={} requests_floor={} leases={} lock_members={}{sessions}",
        row.now.0,
        row.last_index,
        row.fence_base,
        row.cluster_id,
        row.last_node_id,
        row.requests,
        row.request_bytes,
        row.requests_floor,
        row.leases,
        row.lock_members,
    )
}

fn due(key: &[u8]) -> Result<String, Bad> {
    let (Timestamp(at), kind, subject) = parse_due_key(key).ok_or("a due key has no meaning")?;
    let subject = match kind {
        DueKind::Lease
        | DueKind::LeaseHistory
        | DueKind::QueueIdle
        | DueKind::LockHandOver
        | DueKind::Token => name(subject),
        DueKind::LockMember => {
            let (lock, id) = split_name(subject).ok_or("a due key has no acquisition")?;
            format!("{} {}", name(lock), id_text(id))
        }
        DueKind::QueueClaim | DueKind::QueueDelay => {
            let (queue, item) = split_name(subject).ok_or("a due key has no item")?;
            format!("{} {}", name(queue), print::item_id(ItemId(number(item)?)))
        }
        DueKind::QueueDedupe => {
            let (queue, key) = split_name(subject).ok_or("a due key has no dedupe key")?;
            format!("{} {}", name(queue), name(key))
        }
        DueKind::SessionBlob
        | DueKind::SessionWork
        | DueKind::SessionGraph
        | DueKind::SessionGarbage => session_dump::due(kind, subject)?,
    };
    Ok(format!("{at} {kind:?} {subject}"))
}

/// A number in a key.
pub fn number(bytes: &[u8]) -> Result<u64, Bad> {
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

/// A name in a key.
pub fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn id_text(id: &[u8]) -> String {
    name(id).trim_end_matches('\0').to_owned()
}
