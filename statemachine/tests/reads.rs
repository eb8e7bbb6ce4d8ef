//! How many rows commands and queries look at: what has ended must cost those that run nothing.

use std::cell::Cell;

use quorate_statemachine::process::{self, Append, Complete, List, ProcessState, Register};
use quorate_statemachine::refusal::Broken;
use quorate_statemachine::view::{MemoryView, View, Visit};
use quorate_statemachine::{Action, Answer, Command, Entry, Name, Query, Timestamp, apply, query};

/// Counts what is read.
struct Counting<'a> {
    view: &'a MemoryView,
    rows: Cell<usize>,
}

impl View for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, Broken> {
        self.rows.set(self.rows.get() + 1);
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        self.view.scan(from, to, &mut |key, value| {
            self.rows.set(self.rows.get() + 1);
            visit(key, value)
        })
    }
}

fn name(text: String) -> Name {
    Name::parse("name", text).expect("a name")
}

/// A state with so many processes that ended and that run.
fn state(ended: usize, running: usize) -> (MemoryView, u64) {
    let (mut view, mut index) = (MemoryView::default(), 0);
    let mut run = |action: Action| {
        index += 1;
        let entry = Entry {
            index,
            proposed_at: Timestamp(1_000),
            command: &Command::from(action).encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&view, entry).expect("a sound state");
        applied.reply.0.expect("nothing refuses it");
        view.commit(applied.changes);
    };
    for number in 0..ended {
        let id = name(format!("ended-{number}"));
        run(Register::new(id.clone(), Vec::new()).into());
        let (state, outcome) = (ProcessState::Succeeded, Vec::new());
        run(Complete { id, state, outcome }.into());
    }
    for number in 0..running {
        run(Register::new(name(format!("running-{number}")), Vec::new()).into());
    }
    (view, index)
}

fn rows_of_list(view: &MemoryView) -> usize {
    let counting = Counting {
        view,
        rows: Cell::new(0),
    };
    let list = List {
        prefix: String::new(),
        state: Some(ProcessState::Running),
        after: None,
        limit: 0,
    };
    let list = Query::Process(process::Query::List(list));
    let answer = query(&counting, Timestamp(1_000), &list).expect("a sound state");
    let Answer::Process(process::Answer::List(page)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(page.rows.len(), 10);
    counting.rows.get()
}

fn rows_of_append(view: &MemoryView, index: u64) -> usize {
    let counting = Counting {
        view,
        rows: Cell::new(0),
    };
    let id = name("running-0".to_owned());
    let append = Append::new(id, name("note".to_owned()), Vec::new());
    let entry = Entry {
        index: index + 1,
        proposed_at: Timestamp(1_000),
        command: &Command::from(Action::from(append)).encode(),
        principal: quorate_statemachine::Principal::Cluster,
    };
    let applied = apply(&counting, entry).expect("a sound state");
    applied.reply.0.expect("nothing refuses it");
    counting.rows.get()
}

#[test]
fn processes_that_ended_cost_those_that_run_nothing() {
    let (few, index) = state(0, 10);
    let (list, append) = (rows_of_list(&few), rows_of_append(&few, index));
    let (many, index) = state(5_000, 10);
    assert_eq!(rows_of_list(&many), list);
    assert_eq!(rows_of_append(&many, index), append);
    assert!(list <= 40 && append <= 12, "{list} and {append} rows");
}
