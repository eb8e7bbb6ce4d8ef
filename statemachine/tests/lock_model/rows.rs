//! What holds of the rows after every entry, whatever the entries were.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::lock::{Lock, Member, Mode, Place};
use quorate_statemachine::tables::{
    Due, DueKind, Key, LockMembers, LockOrder, LockOwners, Locks, MetaRow, PREFIX_BYTES, Table,
    due_key, lock_member_key, lock_order_key, lock_owner_key, lock_subject, meta_key,
    parse_due_key, split_name, tag_of,
};
use quorate_statemachine::transaction::{read, read_range};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Name, Timestamp};

/// When it is over if nobody does anything.
pub fn deadline(member: &Member) -> Timestamp {
    match member.place {
        Place::Waiting { give_up_at, .. } => {
            let limits = [Some(member.expires_at), give_up_at];
            limits.into_iter().flatten().min().expect("there is one")
        }
        Place::Holding { .. } => member.expires_at,
    }
}

/// The token of a holder.
pub fn token_of(member: &Member) -> Option<u64> {
    match member.place {
        Place::Holding { fencing_token, .. } => Some(fencing_token),
        Place::Waiting { .. } => None,
    }
}

/// The locks and their members, read back.
pub struct Rows {
    pub locks: BTreeMap<Name, Lock>,
    pub members: Vec<(Name, Member)>,
}

fn name(bytes: &[u8]) -> Name {
    Name::parse_bytes("name", bytes).expect("a valid name")
}

/// Every row of a table, with its own part of the key.
fn each<T: Table>(view: &MemoryView, mut visit: impl FnMut(&[u8], T::Row)) {
    let (from, to) = (Key::<T>::first(), Key::<T>::first().end());
    read_range::<T>(view, &from, &to, &mut |key, row| {
        visit(&key[PREFIX_BYTES..], row);
        ControlFlow::Continue(())
    })
    .expect("every row can be read");
}

/// The keys of a table.
fn keys<T: Table>(view: &MemoryView) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    each::<T>(view, |own, _| {
        keys.insert(Key::<T>::first().raw(own).bytes().to_vec());
    });
    keys
}

impl Rows {
    pub fn read(view: &MemoryView) -> Self {
        let mut rows = Self {
            locks: BTreeMap::new(),
            members: Vec::new(),
        };
        each::<Locks>(view, |own, lock| {
            assert_eq!(name(own), lock.key);
            rows.locks.insert(lock.key.clone(), lock);
        });
        each::<LockMembers>(view, |own, member| {
            let (lock, id) = split_name(own).expect("a lock's name and an acquisition");
            assert_eq!(id, member.id.id);
            rows.members.push((name(lock), member));
        });
        rows
    }

    fn of<'a>(&'a self, key: &'a Name) -> impl Iterator<Item = &'a Member> + Clone {
        let own = self.members.iter().filter(move |(of, _)| of == key);
        own.map(|(_, member)| member)
    }
}

pub fn meta(view: &MemoryView) -> MetaRow {
    let meta = read(view, &meta_key()).expect("the meta row can be read");
    meta.unwrap_or_default()
}

/// How many entries are due by `now`, whatever they are about.
pub fn due_by(view: &MemoryView, now: Timestamp) -> usize {
    let mut count = 0;
    let end = Key::<Due>::first().number(now.0 + 1);
    read_range::<Due>(view, &Key::first(), &end, &mut |_, ()| {
        count += 1;
        ControlFlow::Continue(())
    })
    .expect("the due index can be read");
    count
}

/// Checks all of it.
pub fn check(view: &MemoryView) -> Rows {
    let rows = Rows::read(view);
    assert_eq!(meta(view).lock_members, rows.members.len() as u64);
    rows.locks.values().for_each(|lock| check_lock(&rows, lock));
    for (key, member) in &rows.members {
        assert!(rows.locks.contains_key(key), "{member:?} has no lock {key}");
        assert!(
            member.filed_at <= deadline(member),
            "a due entry is never late"
        );
    }
    check_no_orphans(view, &rows);
    check_digest(view);
    rows
}

/// The lock's counts are those of its members.
fn check_lock(rows: &Rows, lock: &Lock) {
    let tokens: BTreeSet<u64> = rows.of(&lock.key).filter_map(token_of).collect();
    let waiters = rows.of(&lock.key).filter(|m| token_of(m).is_none()).count();
    let counted = (lock.holders as usize, lock.waiters as usize);
    assert_eq!(counted, (tokens.len(), waiters), "counts of {lock:?}");
    let holders = rows.of(&lock.key).filter(|m| token_of(m).is_some());
    let exclusive = holders.clone().any(|m| m.mode == Mode::Exclusive);
    assert_eq!(lock.exclusive, exclusive, "mode of {lock:?}");
    assert!(!exclusive || tokens.len() == 1, "{lock:?} is exclusive");
    let last = tokens.last().copied().unwrap_or(0);
    assert!(last <= lock.last_token, "a token of {lock:?} is newer");
    let mut permits = rows.of(&lock.key).map(|member| member.mode.permits());
    assert!(permits.all(|permits| permits == lock.permits), "{lock:?}");
    let owners_of_token = |token| {
        let own = rows
            .of(&lock.key)
            .filter(move |m| token_of(m) == Some(token));
        own.map(|m| (m.owner.owner_id.clone(), m.owner.incarnation_id.clone()))
            .collect::<BTreeSet<_>>()
    };
    for token in tokens {
        assert_eq!(
            owners_of_token(token).len(),
            1,
            "a grant has one owner: {lock:?}"
        );
    }
}

/// Each member asks for certain rows: exactly those are there.
fn check_no_orphans(view: &MemoryView, rows: &Rows) {
    let mut asked = BTreeSet::new();
    for (key, member) in &rows.members {
        let id = member.id.id;
        asked.insert(lock_member_key(key, id).bytes().to_vec());
        asked.insert(lock_order_key(key, member.place, id).bytes().to_vec());
        let subject = lock_subject(key, id);
        let due = due_key(member.filed_at, DueKind::LockMember, &subject);
        asked.insert(due.bytes().to_vec());
        if member.reentrant || matches!(member.place, Place::Waiting { .. }) {
            asked.insert(lock_owner_key(&member.owner, key, id).bytes().to_vec());
        }
    }
    let mut stored = keys::<LockMembers>(view);
    stored.extend(keys::<LockOrder>(view));
    stored.extend(keys::<LockOwners>(view));
    let due = keys::<Due>(view).into_iter();
    stored
        .extend(due.filter(|key| matches!(parse_due_key(key), Some((_, DueKind::LockMember, _)))));
    assert_eq!(stored, asked);
}

fn is_due_of_lock(key: &[u8]) -> bool {
    let kinds = [DueKind::LockMember, DueKind::LockHandOver];
    matches!(parse_due_key(key), Some((_, kind, _)) if kinds.contains(&kind))
}

/// Whether anything of a lock will be due.
pub fn is_something_due(view: &MemoryView) -> bool {
    keys::<Due>(view).iter().any(|key| is_due_of_lock(key))
}

/// Nothing of any lock is there, nor due.
pub fn check_nothing_left(view: &MemoryView) {
    let tags = [
        Locks::TAG,
        LockMembers::TAG,
        LockOrder::TAG,
        LockOwners::TAG,
    ];
    for (key, _) in view.rows() {
        let of_lock = match tag_of(key) {
            Some(Due::TAG) => is_due_of_lock(key),
            Some(tag) => tags.contains(&tag),
            None => false,
        };
        assert!(!of_lock, "{} is left", key.escape_ascii());
    }
    assert_eq!(meta(view).lock_members, 0);
}

/// The running digest is the digest of what is there.
fn check_digest(view: &MemoryView) {
    let mut digest = Digest::default();
    let others = view.rows().filter(|(key, _)| *key != meta_key().bytes());
    others.for_each(|(key, value)| digest.replace(key, None, Some(value)));
    assert_eq!(meta(view).digest, digest);
}
