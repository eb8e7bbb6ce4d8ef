//! Events are numbered without gaps; what was acknowledged is there under its number, once.

use std::collections::BTreeSet;

use crate::history::History;

/// Of one process, whose events all say something else. Nothing is stored while it is not judged.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    if history.stored.is_empty() {
        return wrong;
    }
    let mut said = BTreeSet::new();
    for (number, event) in (1..).zip(&history.stored) {
        if event.sequence != number {
            wrong.push(format!("event {number} is not there, but {event:?}"));
            break;
        }
        if !said.insert(&event.payload) {
            wrong.push(format!("stored twice: {event:?}"));
        }
    }
    for told in &history.appended {
        let at = told.sequence.checked_sub(1);
        let found = at.and_then(|at| history.stored.get(usize::try_from(at).ok()?));
        if found.is_none_or(|found| found.payload != told.payload) {
            wrong.push(format!("acknowledged {told:?}, but there is {found:?}"));
        }
    }
    let mut by_sending: Vec<_> = history.appended.iter().collect();
    by_sending.sort_by_key(|told| told.sent);
    let mut by_answer = history.appended.iter().collect::<Vec<_>>();
    by_answer.sort_by_key(|told| told.answered);
    let (mut answered, mut highest) = (by_answer.into_iter().peekable(), 0);
    for told in by_sending {
        while let Some(earlier) = answered.next_if(|other| other.answered < told.sent) {
            highest = highest.max(earlier.sequence);
        }
        if told.sequence <= highest {
            wrong.push(format!("asked for after {highest} was answered: {told:?}"));
        }
    }
    wrong
}
