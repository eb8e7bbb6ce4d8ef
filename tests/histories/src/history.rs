//! What writers asked for and what they were answered: the account that the oracle checks.

use std::time::Duration;

use quorate_client::ClientError;
use quorate_statemachine::queue::ItemId;
use quorate_statemachine::{FencingToken, LeaseToken};
use tokio::time::Instant;

/// What became of an operation, as far as its caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Acknowledged: it must never be lost.
    Done(T),
    /// It may have been done, once, or not at all.
    Unknown(String),
    /// It was certainly not done and must leave no trace.
    NotDone(String),
}

impl<T> Outcome<T> {
    /// Sorts a client's answer.
    pub fn of(result: Result<T, ClientError>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer),
            Err(error) if error.may_have_happened() => Self::Unknown(error.to_string()),
            Err(error) => Self::NotDone(error.to_string()),
        }
    }

    /// The answer, if there was one.
    #[must_use]
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Unknown(_) | Self::NotDone(_) => None,
        }
    }

    /// The same with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(answer) => Outcome::Done(change(answer)),
            Self::Unknown(why) => Outcome::Unknown(why),
            Self::NotDone(why) => Outcome::NotDone(why),
        }
    }

    /// What it is worth in a state that was saved within `saved`.
    fn as_of(&mut self, span: Span, saved: Span) {
        if matches!(self, Self::NotDone(_)) || span.answered <= saved.sent {
            return;
        }
        *self = match span.sent >= saved.answered {
            true => Self::NotDone("it was sent after the state was saved".to_owned()),
            false => Self::Unknown("it was under way while the state was saved".to_owned()),
        };
    }

    /// Why there was no answer.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Done(_) => None,
            Self::Unknown(why) | Self::NotDone(why) => Some(why),
        }
    }
}

/// From the instant before an operation was sent to the instant after its answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before it was sent.
    pub sent: Instant,
    /// After the answer or the failure.
    pub answered: Instant,
}

impl Span {
    /// From `sent` to now.
    #[must_use]
    pub fn since(sent: Instant) -> Self {
        Self {
            sent,
            answered: Instant::now(),
        }
    }
}

/// A claim of a lease.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The key.
    pub key: String,
    /// The proof that the caller minted.
    pub lease_token: LeaseToken,
    /// The fencing token, or none if somebody else held the key.
    pub outcome: Outcome<Option<FencingToken>>,
    /// When.
    pub span: Span,
    /// When the caller stopped holding it: before it sent the release, or as its time may be over.
    pub held_until: Instant,
}

/// An event appended to a process.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The process.
    pub process: String,
    /// The payload, never used twice.
    pub payload: String,
    /// The sequence number.
    pub outcome: Outcome<u64>,
    /// When.
    pub span: Span,
}

/// An item pushed to the queue.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The payload, never used twice.
    pub payload: String,
    /// The item.
    pub outcome: Outcome<ItemId>,
    /// When.
    pub span: Span,
}

/// Items taken from the queue by one claim.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The items with their payloads, and the claim's token; empty when nothing was ready.
    pub outcome: Outcome<Vec<(ItemId, String, FencingToken)>>,
    /// When.
    pub span: Span,
}

/// A claimed item settled as done.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The item.
    pub item: ItemId,
    /// The claim.
    pub token: FencingToken,
    /// Whether it was accepted.
    pub outcome: Outcome<()>,
    /// When.
    pub span: Span,
}

/// All operations of one or more writers.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Claims of leases.
    pub claims: Vec<Claimed>,
    /// Appended events.
    pub appends: Vec<Appended>,
    /// Pushed items.
    pub pushes: Vec<Pushed>,
    /// Taken items.
    pub takes: Vec<Taken>,
    /// Settled items.
    pub settles: Vec<Settled>,
    /// When writes were acknowledged, releases included.
    pub acknowledged: Vec<Instant>,
    /// Operations that came to nothing, each with why.
    pub failures: Vec<String>,
}

impl History {
    /// Adds what another writer did.
    pub fn merge(&mut self, other: Self) {
        self.claims.extend(other.claims);
        self.appends.extend(other.appends);
        self.pushes.extend(other.pushes);
        self.takes.extend(other.takes);
        self.settles.extend(other.settles);
        self.acknowledged.extend(other.acknowledged);
        self.failures.extend(other.failures);
    }

    /// Notes whether an operation was acknowledged or failed.
    pub fn note<T>(&mut self, what: &str, outcome: &Outcome<T>) {
        match outcome.failure() {
            None => self.acknowledged.push(Instant::now()),
            Some(why) => self.failures.push(format!("{what}: {why}")),
        }
    }

    /// What is known of a state that was saved within `saved`: what was acknowledged before is in
    /// it, what was sent after is not, and what lies between may be.
    #[must_use]
    pub fn as_of(mut self, saved: Span) -> Self {
        let claims = self.claims.iter_mut();
        claims.for_each(|claim| claim.outcome.as_of(claim.span, saved));
        let appends = self.appends.iter_mut();
        appends.for_each(|append| append.outcome.as_of(append.span, saved));
        let pushes = self.pushes.iter_mut();
        pushes.for_each(|push| push.outcome.as_of(push.span, saved));
        let takes = self.takes.iter_mut();
        takes.for_each(|take| take.outcome.as_of(take.span, saved));
        let settles = self.settles.iter_mut();
        settles.for_each(|settle| settle.outcome.as_of(settle.span, saved));
        self
    }

    /// The highest token that anybody was granted.
    #[must_use]
    pub fn highest_token(&self) -> FencingToken {
        self.grants().map(|(token, _)| token).max().unwrap_or(0)
    }

    /// The longest time in which no writer's write was acknowledged.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let mut acknowledged = self.acknowledged.clone();
        acknowledged.sort_unstable();
        let gaps = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// Every grant with its token, leases and queue claims alike.
    pub fn grants(&self) -> impl Iterator<Item = (FencingToken, Span)> + '_ {
        let leases = self.claims.iter().filter_map(|claim| {
            let token = claim.outcome.done()?.as_ref()?;
            Some((*token, claim.span))
        });
        let items = self.takes.iter().filter_map(|take| {
            let (_, _, token) = take.outcome.done()?.first()?;
            Some((*token, take.span))
        });
        leases.chain(items)
    }

    /// A line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} acknowledged ({} claims, {} events, {} pushed, {} settled), {} failed, longest gap \
             {} ms",
            self.acknowledged.len(),
            self.claims.len(),
            self.appends.len(),
            self.pushes.len(),
            self.settles.len(),
            self.failures.len(),
            self.longest_gap().as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_before_the_save_is_in_it_and_what_was_sent_after_is_not() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let span = |sent: u64, answered: u64| Span {
            sent: at(sent),
            answered: at(answered),
        };
        let saved = span(10, 20);
        let outcome = |span: Span| {
            let push = Pushed {
                payload: String::new(),
                outcome: Outcome::Done(ItemId(1)),
                span,
            };
            let history = History {
                pushes: vec![push],
                ..History::default()
            };
            history.as_of(saved).pushes.remove(0).outcome
        };
        assert_eq!(outcome(span(1, 10)).done(), Some(&ItemId(1)));
        assert!(matches!(outcome(span(1, 11)), Outcome::Unknown(_)));
        assert!(matches!(outcome(span(19, 30)), Outcome::Unknown(_)));
        assert!(matches!(outcome(span(20, 30)), Outcome::NotDone(_)));
    }
}
