//! Locks, holders and waiters as they are printed.

use quorate_client::acquisition_text;
use quorate_statemachine::lock::{LockView, Member, Mode, Place};
use quorate_statemachine::{Name, Timestamp};
use serde::Serialize;

use crate::commands::rows::Note;
use crate::output::Row;
use crate::value::{span, time};

/// How a lock is shared, for people.
pub fn mode_words(mode: Mode) -> String {
    match mode {
        Mode::Permit { of } => format!("permit of {of}"),
        mode => mode.as_str().to_owned(),
    }
}

/// Somebody who holds a lock.
#[derive(Debug, Serialize)]
pub struct HolderRow {
    owner_id: String,
    incarnation_id: String,
    acquisition: String,
    mode: &'static str,
    fencing_token: String,
    ttl_ms: String,
    granted_at: String,
    renewed_at: String,
    expires_at: String,
    remaining_ms: String,
    #[serde(flatten)]
    note: Note,
    #[serde(skip)]
    shown: [String; 2],
}

impl HolderRow {
    /// The holder as of `now`; none if it only waits.
    pub fn new(member: &Member, now: Timestamp) -> Option<Self> {
        let Place::Holding {
            fencing_token,
            granted_at,
            renewed_at,
        } = member.place
        else {
            return None;
        };
        let remaining_ms = member.expires_at.since(now);
        Some(Self {
            owner_id: member.owner.owner_id.to_string(),
            incarnation_id: member.owner.incarnation_id.to_string(),
            acquisition: acquisition_text(member.id.id),
            mode: member.mode.as_str(),
            fencing_token: fencing_token.to_string(),
            ttl_ms: member.ttl_ms.to_string(),
            granted_at: time(granted_at),
            renewed_at: time(renewed_at),
            expires_at: time(member.expires_at),
            remaining_ms: remaining_ms.to_string(),
            note: Note::new(&member.metadata),
            shown: [mode_words(member.mode), span(remaining_ms)],
        })
    }
}

impl Row for HolderRow {
    const HEADER: &'static [&'static str] =
        &["HOLDER", "INCARNATION", "MODE", "TOKEN", "GRANTED AT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.owner_id.clone(),
            self.incarnation_id.clone(),
            self.shown[0].clone(),
            self.fencing_token.clone(),
            self.granted_at.clone(),
        ]
    }

    fn name(&self) -> String {
        self.fencing_token.clone()
    }
}

/// A lock, with its holders as a list.
#[derive(Debug, Serialize)]
pub struct LockRow {
    key: String,
    permits: Option<u32>,
    exclusive: bool,
    waiters: u32,
    /// All of them, where the list has only the oldest.
    holder_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_until: Option<String>,
    holders: Vec<HolderRow>,
}

impl LockRow {
    /// The lock as of `now`.
    pub fn new(view: &LockView, now: Timestamp) -> Self {
        let holders = &view.holders;
        Self {
            key: view.lock.key.to_string(),
            permits: view.lock.permits,
            exclusive: holders.iter().any(|it| it.mode == Mode::Exclusive),
            waiters: view.lock.waiters,
            holder_count: view.lock.holders,
            rests_until: rests(view, now).then(|| time(view.lock.blocked_until)),
            holders: holders
                .iter()
                .filter_map(|member| HolderRow::new(member, now))
                .collect(),
        }
    }
}

/// Whether nobody gets the lock because a holder died.
fn rests(view: &LockView, now: Timestamp) -> bool {
    now < view.lock.blocked_until
}

impl Row for LockRow {
    /// A table has a line for each holder instead: [`HolderLine`].
    const HEADER: &'static [&'static str] = &["KEY"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone()]
    }

    fn name(&self) -> String {
        self.key.clone()
    }
}

/// One holder of a lock, as a line of a table; of a lock without one, what there is to say.
#[derive(Debug, Serialize)]
pub struct HolderLine {
    cells: Vec<String>,
}

impl HolderLine {
    /// The lines of one lock.
    pub fn all(view: &LockView, now: Timestamp) -> Vec<Self> {
        let line = |[mode, holder, token, remaining]: [String; 4]| Self {
            cells: vec![
                view.lock.key.to_string(),
                mode,
                holder,
                token,
                remaining,
                view.lock.waiters.to_string(),
            ],
        };
        let holders = view.holders.iter().filter_map(|it| HolderRow::new(it, now));
        let mut lines: Vec<_> = holders
            .map(|holder| {
                let [mode, remaining] = holder.shown;
                line([mode, holder.owner_id, holder.fencing_token, remaining])
            })
            .collect();
        let more = (view.lock.holders as usize).saturating_sub(view.holders.len());
        let none = || {
            [
                "-".to_owned(),
                String::new(),
                "-".to_owned(),
                "-".to_owned(),
            ]
        };
        let mut say = |words: String| {
            let mut cells = none();
            cells[1] = words;
            lines.push(line(cells));
        };
        if rests(view, now) {
            let left = span(view.lock.blocked_until.since(now));
            say(format!("(rests for {left}: a holder died)"));
        } else if view.holders.is_empty() {
            say("(nobody)".to_owned());
        } else if more > 0 {
            say(format!("(and {more} more)"));
        }
        lines
    }
}

impl Row for HolderLine {
    const HEADER: &'static [&'static str] =
        &["KEY", "MODE", "HOLDER", "TOKEN", "REMAINING", "WAITERS"];

    fn cells(&self) -> Vec<String> {
        self.cells.clone()
    }

    fn name(&self) -> String {
        self.cells[0].clone()
    }
}

/// Who has a lock, in words that complete "it is …".
pub fn standing(view: &LockView, now: Timestamp) -> String {
    let Some(holder) = view.holders.first() else {
        return match rests(view, now) {
            true => format!(
                "held by nobody, but rests for {} because a holder died",
                span(view.lock.blocked_until.since(now))
            ),
            false => "held by nobody".to_owned(),
        };
    };
    let more = match view.lock.holders {
        0 | 1 => String::new(),
        count => format!(", and by {} more", count - 1),
    };
    format!(
        "held by {:?} with fencing token {}, for {} more unless renewed{more}",
        holder.owner.owner_id.as_str(),
        holder.fencing_token().unwrap_or_default(),
        span(holder.expires_at.since(now)),
    )
}

/// Somebody who waits for a lock.
#[derive(Debug, Serialize)]
pub struct WaiterRow {
    key: String,
    position: String,
    acquisition: String,
    owner_id: String,
    incarnation_id: String,
    mode: &'static str,
    waiting_since: String,
    waiting_ms: String,
    gives_up_at: Option<String>,
    /// When the place is lost unless whoever waits is heard of.
    expires_at: String,
    #[serde(flatten)]
    note: Note,
    #[serde(skip)]
    mode_words: String,
}

impl WaiterRow {
    /// Who is at `position` in the queue of `key`.
    pub fn new(key: &Name, position: u64, member: &Member, now: Timestamp) -> Self {
        let gives_up_at = match member.place {
            Place::Waiting { give_up_at, .. } => give_up_at.map(time),
            Place::Holding { .. } => None,
        };
        Self {
            key: key.to_string(),
            position: position.to_string(),
            acquisition: acquisition_text(member.id.id),
            owner_id: member.owner.owner_id.to_string(),
            incarnation_id: member.owner.incarnation_id.to_string(),
            mode: member.mode.as_str(),
            waiting_since: time(member.asked_at),
            waiting_ms: now.since(member.asked_at).to_string(),
            gives_up_at,
            expires_at: time(member.expires_at),
            note: Note::new(&member.metadata),
            mode_words: mode_words(member.mode),
        }
    }
}

impl Row for WaiterRow {
    const HEADER: &'static [&'static str] = &[
        "POSITION",
        "WAITER",
        "OWNER",
        "MODE",
        "WAITING SINCE",
        "GIVES UP AT",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.position.clone(),
            self.acquisition.clone(),
            self.owner_id.clone(),
            self.mode_words.clone(),
            self.waiting_since.clone(),
            self.gives_up_at
                .clone()
                .unwrap_or_else(|| "never".to_owned()),
        ]
    }

    fn name(&self) -> String {
        self.acquisition.clone()
    }
}

/// A wait that was ended.
#[derive(Debug, Serialize)]
pub struct CancelledRow {
    key: String,
    acquisition: String,
    cancelled: bool,
}

impl CancelledRow {
    /// The wait of `acquisition` for `key`.
    pub fn new(key: &Name, acquisition: String) -> Self {
        Self {
            key: key.to_string(),
            acquisition,
            cancelled: true,
        }
    }
}

impl Row for CancelledRow {
    const HEADER: &'static [&'static str] = &["KEY", "WAITER", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            self.acquisition.clone(),
            "cancelled".to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.acquisition.clone()
    }
}
