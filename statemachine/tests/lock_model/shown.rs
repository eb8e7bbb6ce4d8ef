//! What queries show is what the model has.

use quorate_statemachine::lock::{
    Answer, Find, Found, Get, List, Lock, LockView, Member, Mode, Query, Waiters,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Answer as AnyAnswer, Name, Query as AnyQuery, Timestamp, query};

use crate::model::{Id, Kept, Model, token_of};

/// Where a due entry is filed is the state machine's own affair.
pub fn normal(mut member: Member) -> Member {
    member.filed_at = Timestamp(0);
    member
}

fn normal_view(mut view: LockView) -> LockView {
    view.holders = view.holders.into_iter().map(normal).collect();
    view
}

/// Reads at the model's time, which may be later than the last entry's.
struct Reader<'a> {
    view: &'a MemoryView,
    model: &'a Model,
}

impl Reader<'_> {
    fn ask(&self, question: Query) -> Answer {
        let question = AnyQuery::Lock(question);
        let question = AnyQuery::decode(&question.encode()).expect("a valid query");
        match query(self.view, self.model.now, &question) {
            Ok(AnyAnswer::Lock(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, key: &Name) -> Option<LockView> {
        let key = key.clone();
        let Answer::Get(view) = self.ask(Query::Get(Get { key })) else {
            panic!("a lock is asked for");
        };
        view.map(normal_view)
    }

    fn find(&self, key: &Name, id: Id) -> Found {
        let key = key.clone();
        match self.ask(Query::Find(Find { key, id })) {
            Answer::Find(Found::Member(member)) => Found::Member(normal(member)),
            Answer::Find(found) => found,
            other => panic!("{other:?} is no place of an acquisition"),
        }
    }

    /// All pages.
    fn waiters(&self, key: &Name, limit: u32) -> Vec<Member> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let key = key.clone();
            let Answer::Waiters(page) = self.ask(Query::Waiters(Waiters { key, after, limit }))
            else {
                panic!("waiters are asked for");
            };
            assert!(page.rows.len() <= limit as usize);
            all.extend(page.rows.into_iter().map(normal));
            match page.next {
                Some(next) => after = Some(next.parse().expect("a ticket")),
                None => return all,
            }
        }
    }

    /// All pages.
    fn list(&self, limit: u32) -> Vec<LockView> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let prefix = String::new();
            let question = List {
                prefix,
                after,
                limit,
            };
            let Answer::List(page) = self.ask(Query::List(question)) else {
                panic!("locks are asked for");
            };
            assert!(page.rows.len() <= limit as usize);
            all.extend(page.rows.into_iter().map(normal_view));
            match page.next {
                Some(next) => after = Some(Name::parse("after", next).expect("a key")),
                None => return all,
            }
        }
    }
}

/// Checks what is shown of these locks and acquisitions. Where the sweep has not come by, only who
/// lives is compared: the rows of the others still count.
pub fn check(view: &MemoryView, model: &Model, swept: bool, keys: &[Name], ids: &[(Name, Id)]) {
    let reader = Reader { view, model };
    for key in keys {
        let shown = reader.get(key);
        let holders = shown.as_ref().map_or(&[][..], |shown| &shown.holders);
        assert_eq!(holders, model.holders_shown(key), "holders of {key}");
        let waiters: Vec<Member> = model.waiters(key).into_iter().cloned().collect();
        assert_eq!(reader.waiters(key, 2), waiters, "waiters of {key}");
        if swept {
            check_lock(model, key, shown.map(|shown| shown.lock));
        }
    }
    if swept {
        let expected = keys.iter().filter_map(|key| reader.get(key));
        assert_eq!(reader.list(2), expected.collect::<Vec<_>>(), "all locks");
    }
    for (key, id) in ids {
        assert_eq!(
            reader.find(key, *id),
            found(model, key, *id),
            "{id:?} of {key}"
        );
    }
}

/// The lock itself. Its last token is that of a grant; a delay that is over may still be noted.
fn check_lock(model: &Model, key: &Name, shown: Option<Lock>) {
    let Some(permits) = model.used_as(key) else {
        return assert_eq!(shown, None, "{key} is idle");
    };
    let shown = shown.unwrap_or_else(|| panic!("{key} is in use"));
    let holders = model.holders(key);
    let expected = Lock {
        key: key.clone(),
        permits,
        holders: model.tokens_held(key).len() as u32,
        exclusive: holders.iter().any(|member| member.mode == Mode::Exclusive),
        waiters: model.waiters(key).len() as u32,
        last_token: shown.last_token,
        blocked_until: match model.rests_until(key) {
            Some(until) => until,
            None => shown.blocked_until.min(model.now),
        },
    };
    assert_eq!(shown, expected);
    let tokens = model.tokens.iter().filter(|(of, _)| of == key);
    let last = tokens.map(|(_, token)| *token).max().unwrap_or(0);
    let held = holders.into_iter().filter_map(token_of).max().unwrap_or(0);
    assert!(shown.last_token == last || (shown.last_token == 0 && held == 0));
}

fn found(model: &Model, key: &Name, id: Id) -> Found {
    if let Some(at) = model.find(key, id) {
        return Found::Member(model.parties[at].member.clone());
    }
    match model.kept(key, id) {
        Some(Kept::End(end)) => Found::Over(end),
        Some(Kept::Other) | None => Found::Unknown,
    }
}
