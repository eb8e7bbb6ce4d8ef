//! Locks as one line of text each, every field shown.

use quorate_statemachine::lock::{
    Acquired, Answer, End, Found, Kept, Link, Lock, LockView, Member, Mode, Place, Released,
    Response, WaitCancelled,
};

use crate::print::{bytes, numbered, owner, page, refused};

pub fn response(response: &Response) -> String {
    match response {
        Response::Acquire(Acquired::Granted(member)) => format!("granted {}", member_row(member)),
        Response::Acquire(Acquired::Waiting(member)) => format!("waits {}", member_row(member)),
        Response::Acquire(Acquired::Busy(holders)) => {
            format!("busy{}", numbered(holders.iter().map(member_row)))
        }
        Response::Acquire(Acquired::Over(why)) => format!("over, {}", end(why)),
        Response::Renew(what) => kept(*what),
        Response::RenewMany(answers) => {
            let lines = answers.iter().map(|answer| match answer {
                Ok(what) => kept(*what),
                Err(refusal) => refused(refusal),
            });
            format!("{} answers{}", answers.len(), numbered(lines))
        }
        Response::Release(Released::Released { fencing_token }) => {
            format!("released fencing={fencing_token}")
        }
        Response::Release(Released::Cancelled) | Response::CancelWait(WaitCancelled::Cancelled) => {
            "cancelled".to_owned()
        }
        Response::Release(Released::NotHeld { end: why }) => format!("not held, {}", end(why)),
        Response::CancelWait(WaitCancelled::Holding(member)) => {
            format!("holds {}", member_row(member))
        }
        Response::CancelWait(WaitCancelled::Over(why)) => format!("over, {}", end(why)),
        Response::Revoke(members) => format!(
            "{} holds revoked{}",
            members.len(),
            numbered(members.iter().map(member_row))
        ),
        Response::Proclaim(member) => format!("proclaimed {}", member_row(member)),
    }
}

fn kept(kept: Kept) -> String {
    match kept {
        Kept::Waiting { expires_at } => format!("kept the wait expires={}", expires_at.0),
        Kept::Holding {
            fencing_token,
            expires_at,
        } => format!(
            "kept the hold fencing={fencing_token} expires={}",
            expires_at.0
        ),
    }
}

pub fn end(end: &End) -> String {
    let words = end.as_str();
    match end {
        End::Released { fencing_token } => format!("{words} fencing={fencing_token}"),
        End::Expired { fencing_token, at } => {
            format!("{words} fencing={fencing_token} at={}", at.0)
        }
        End::Revoked { fencing_token, by } => format!("{words} fencing={fencing_token} by {by:?}"),
        End::Cancelled | End::GaveUp | End::WaiterDied => words.to_owned(),
        End::Deadlock { cycle } => {
            let links: Vec<String> = cycle.iter().map(link).collect();
            format!("{words}: {}", links.join(", "))
        }
    }
}

fn link(link: &Link) -> String {
    format!(
        "{}/{} waits for {}",
        link.owner_id, link.incarnation_id, link.waits_for
    )
}

pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Get(view) => view.as_ref().map_or_else(|| "idle".to_owned(), view_row),
        Answer::List(rows) => page(rows, view_row),
        Answer::Waiters(rows) => page(rows, member_row),
        Answer::Find(Found::Member(member)) => member_row(member),
        Answer::Find(Found::Over(why)) => format!("over, {}", end(why)),
        Answer::Find(Found::Unknown) => "unknown".to_owned(),
    }
}

fn view_row(view: &LockView) -> String {
    let holders = numbered(view.holders.iter().map(member_row));
    format!("{}{holders}", lock_row(&view.lock))
}

pub fn lock_row(lock: &Lock) -> String {
    let permits = lock.permits.map(|of| format!(" permits={of}"));
    let blocked = match lock.blocked_until.0 {
        0 => String::new(),
        until => format!(" blocked={until}"),
    };
    format!(
        "{} holders={}{} waiters={} last={}{}{blocked}",
        lock.key,
        lock.holders,
        if lock.exclusive { " exclusive" } else { "" },
        lock.waiters,
        lock.last_token,
        permits.unwrap_or_default(),
    )
}

pub fn member_row(member: &Member) -> String {
    let place = match member.place {
        Place::Waiting { ticket, give_up_at } => {
            let until = give_up_at.map(|at| format!(" until={}", at.0));
            format!("ticket={ticket}{}", until.unwrap_or_default())
        }
        Place::Holding {
            fencing_token,
            granted_at,
            renewed_at,
        } => format!(
            "fencing={fencing_token} granted={} renewed={}",
            granted_at.0, renewed_at.0
        ),
    };
    let delay = match member.delay_ms {
        0 => String::new(),
        delay => format!(" delay={delay}"),
    };
    format!(
        "{} {} {} {place} ttl={}/{} asked={} expires={} filed={}{delay}{}{}",
        id(&member.id.id),
        owner(&member.owner),
        mode(member.mode),
        member.ttl_ms,
        member.wait_ttl_ms,
        member.asked_at.0,
        member.expires_at.0,
        member.filed_at.0,
        if member.reentrant { " reentrant" } else { "" },
        bytes("metadata", &member.metadata),
    )
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Permit { of } => format!("permit-of-{of}"),
        other => other.as_str().to_owned(),
    }
}

/// The text that the script made the id of.
pub fn id(id: &[u8]) -> String {
    String::from_utf8_lossy(id)
        .trim_end_matches('\0')
        .to_owned()
}
