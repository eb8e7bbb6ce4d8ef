//! What each command does to the model, and answers.

use std::collections::VecDeque;

use quorate_statemachine::limits::MEMBERS_REVOKED_MAX;
use quorate_statemachine::lock::{
    self, Acquire, Acquired, CancelWait, Command as LockCommand, End, Kept, Member, Place,
    Proclaim, Release, Released, Renew, Revoke, WaitCancelled,
};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{
    Action, Command, Name, Precondition, Refusal, Reply, Response, Subject, cluster,
};

use crate::circles;
use crate::model::{Id, Kept as Remembered, Model, deadline, ticket_of, token_of};

type Told<'a> = &'a mut VecDeque<Notice>;
type Outcome<T> = Result<T, Refusal>;

/// A conflict without its words: those are for people.
fn conflict(key: &Name) -> Refusal {
    Refusal::Conflict {
        subject: Subject::Lock,
        name: key.to_string(),
        problem: String::new(),
    }
}

impl Model {
    /// Does a command. `told` are its notices, `actual` what the state machine answered: where the
    /// rules leave a choice, that is checked and followed.
    pub fn execute(&mut self, command: &Command, told: Told<'_>, actual: &Reply) -> Reply {
        let before = self.clone();
        let outcome = self.guarded(command, told, actual);
        if outcome.is_err() {
            *self = before;
        }
        if let Some(request) = command.request {
            self.keep(request.id, Remembered::Other);
        }
        Reply(outcome)
    }

    fn guarded(&mut self, command: &Command, told: Told<'_>, actual: &Reply) -> Outcome<Response> {
        for precondition in &command.preconditions {
            if let Precondition::Lock { key, token } = precondition {
                self.hold_of(key, *token)?;
            }
        }
        match &command.action {
            Action::Lock(command) => self.lock(command, told, actual).map(Response::Lock),
            Action::Composite(steps) => self.composite(steps, told, actual),
            Action::Cluster(cluster::Command::AllocateNodeId(_)) => Ok(or_panic(actual)),
            Action::Cluster(cluster::Command::Tick(_)) => {
                Ok(Response::Cluster(cluster::Response::Tick(())))
            }
            other => panic!("{other:?} is not modelled"),
        }
    }

    /// Releases, or steps that have nothing to do with locks and are never refused.
    fn composite(&mut self, steps: &[Action], told: Told<'_>, actual: &Reply) -> Outcome<Response> {
        let Some(releases) = steps.iter().map(release_of).collect::<Option<Vec<_>>>() else {
            return Ok(or_panic(actual));
        };
        let unswept = self.unswept(&releases);
        let mut responses = Vec::new();
        for ((step, release), unswept) in (0u32..).zip(releases).zip(unswept) {
            let released =
                self.release(release, unswept, told)
                    .map_err(|refusal| Refusal::Step {
                        step,
                        refusal: Box::new(refusal),
                    })?;
            responses.push(Response::Lock(lock::Response::Release(released)));
        }
        Ok(Response::Composite(responses))
    }

    /// How acquisitions ended that the sweep had left when the releases began, for the first
    /// release of each. A hand-over of a release before it may end it; the answer stays the same.
    fn unswept(&self, releases: &[&Release]) -> Vec<Option<End>> {
        let end = |at: usize| {
            let release = releases[at];
            let first = releases.iter().position(|other| *other == release) == Some(at);
            let end = self.leaving_end(&release.key, release.id);
            end.filter(|_| first)
        };
        (0..releases.len()).map(end).collect()
    }

    fn lock(
        &mut self,
        command: &LockCommand,
        told: Told<'_>,
        actual: &Reply,
    ) -> Outcome<lock::Response> {
        use lock::Response as Answer;
        match command {
            LockCommand::Acquire(acquire) => {
                self.acquire(acquire, told, actual).map(Answer::Acquire)
            }
            LockCommand::Renew(renew) => self.renew(renew).map(Answer::Renew),
            LockCommand::RenewMany(many) => {
                let answers = many.renewals.iter().map(|renew| self.renew(renew));
                Ok(Answer::RenewMany(answers.collect()))
            }
            LockCommand::Release(release) => {
                let unswept = self.leaving_end(&release.key, release.id);
                self.release(release, unswept, told).map(Answer::Release)
            }
            LockCommand::CancelWait(cancel) => self.cancel(cancel, told).map(Answer::CancelWait),
            LockCommand::Revoke(revoke) => self.revoke(revoke, told).map(Answer::Revoke),
            LockCommand::Proclaim(proclaim) => {
                self.proclaim(proclaim, told, actual).map(Answer::Proclaim)
            }
        }
    }

    /// What is known of an acquisition that neither waits nor holds.
    fn known_end(&self, key: &Name, id: Id) -> Outcome<Option<End>> {
        match self.kept(key, id) {
            None => Ok(None),
            Some(Remembered::End(end)) => Ok(Some(end)),
            Some(Remembered::Other) => Err(conflict(key)),
        }
    }

    fn acquire(&mut self, asked: &Acquire, told: Told<'_>, actual: &Reply) -> Outcome<Acquired> {
        let (key, id) = (&asked.key, asked.id.id);
        if let Some(at) = self.find(key, id) {
            return Ok(self.acquire_again(at));
        }
        if let Some(end) = self.known_end(key, id)? {
            self.hear(told);
            return Ok(Acquired::Over(end));
        }
        if asked.id.not_before < self.floor {
            return Err(Refusal::RequestTooOld {
                floor: self.floor,
                not_before: asked.id.not_before,
            });
        }
        self.hear(told);
        let permits = asked.mode.permits();
        if self.used_as(key).is_some_and(|used| used != permits) {
            return Err(conflict(key));
        }
        let own = self.holds_to_enter(key, &asked.owner, asked.mode);
        if !own.is_empty() && asked.reentrant {
            let told_token = granted(actual).and_then(token_of);
            let entered = own
                .into_iter()
                .find(|(token, _)| Some(*token) == told_token);
            let (token, mode) = entered.expect("an owner enters a hold of its own again");
            return Ok(Acquired::Granted(self.add_to_hold(asked, token, mode)));
        }
        Ok(self.acquire_anew(asked, told, actual))
    }

    fn acquire_again(&mut self, at: usize) -> Acquired {
        let (now, member) = (self.now, &mut self.parties[at].member);
        match member.place {
            Place::Holding { .. } => Acquired::Granted(member.clone()),
            Place::Waiting { .. } => {
                member.expires_at = now.plus(member.wait_ttl_ms);
                Acquired::Waiting(member.clone())
            }
        }
    }

    fn acquire_anew(&mut self, asked: &Acquire, told: Told<'_>, actual: &Reply) -> Acquired {
        if self.is_free(&asked.key, asked.mode) {
            let notice = Notice::LockGranted {
                key: asked.key.clone(),
                id: asked.id.id,
                owner_id: asked.owner.owner_id.clone(),
                fencing_token: self.index,
            };
            assert_eq!(told.pop_front(), Some(notice), "{asked:?} is told");
            return Acquired::Granted(self.add_holder(asked));
        }
        if asked.max_wait_ms == Some(0) {
            return Acquired::Busy(self.holders_shown(&asked.key));
        }
        if let Some(over @ End::Deadlock { cycle }) = ended(actual) {
            circles::check_refused(self, asked, cycle);
            self.keep(asked.id.id, Remembered::End(over.clone()));
            return Acquired::Over(over.clone());
        }
        assert!(
            !circles::would_close_one(self, asked),
            "{asked:?} closes a circle"
        );
        Acquired::Waiting(self.add_waiter(asked))
    }

    fn renew(&mut self, renew: &Renew) -> Outcome<Kept> {
        let Some(at) = self.find(&renew.key, renew.id) else {
            let end = self.known_end(&renew.key, renew.id)?;
            return Err(self.nothing_to_keep(&renew.key, end));
        };
        let (now, member) = (self.now, &mut self.parties[at].member);
        let expires_at = match &mut member.place {
            Place::Waiting { .. } => now.plus(member.wait_ttl_ms),
            Place::Holding { renewed_at, .. } => {
                *renewed_at = now;
                member.ttl_ms = renew.ttl_ms.unwrap_or(member.ttl_ms);
                now.plus(member.ttl_ms)
            }
        };
        member.expires_at = expires_at;
        Ok(match token_of(member) {
            None => Kept::Waiting {
                expires_at: deadline(member),
            },
            Some(fencing_token) => Kept::Holding {
                fencing_token,
                expires_at,
            },
        })
    }

    fn nothing_to_keep(&self, key: &Name, end: Option<End>) -> Refusal {
        let (subject, name) = (Subject::Lock, key.to_string());
        match end {
            None => Refusal::NotFound { subject, name },
            Some(End::Expired { fencing_token, at }) => Refusal::Expired {
                subject,
                name,
                token: fencing_token,
                expired_at: at,
            },
            Some(End::Released { fencing_token } | End::Revoked { fencing_token, .. }) => {
                self.fenced(key, fencing_token)
            }
            Some(_) => conflict(key),
        }
    }

    fn release(
        &mut self,
        release: &Release,
        unswept: Option<End>,
        told: Told<'_>,
    ) -> Outcome<Released> {
        let (key, id) = (&release.key, release.id);
        let end = match self.find(key, id) {
            None if unswept.is_some() => unswept,
            None => self.known_end(key, id)?,
            Some(at) => {
                let token = token_of(&self.parties[at].member);
                let end = match token {
                    Some(fencing_token) => End::Released { fencing_token },
                    None => End::Cancelled,
                };
                self.end(at, end.clone());
                Some(end)
            }
        };
        self.keep_cancelled(key, id);
        self.hear(told);
        Ok(match end {
            Some(End::Released { fencing_token }) => Released::Released { fencing_token },
            None | Some(End::Cancelled) => Released::Cancelled,
            Some(end) => Released::NotHeld { end },
        })
    }

    /// Who is cancelled before it arrived, never will be heard.
    fn keep_cancelled(&mut self, key: &Name, id: Id) {
        if self.leaving_end(key, id).is_none() {
            self.keep(id, Remembered::End(End::Cancelled));
        }
    }

    fn cancel(&mut self, cancel: &CancelWait, told: Told<'_>) -> Outcome<WaitCancelled> {
        let (key, id) = (&cancel.key, cancel.id);
        let end = match self.find(key, id) {
            None => self.known_end(key, id)?.unwrap_or(End::Cancelled),
            Some(at) if ticket_of(&self.parties[at].member).is_none() => {
                return Ok(WaitCancelled::Holding(self.parties[at].member.clone()));
            }
            Some(at) => {
                self.end(at, End::Cancelled);
                End::Cancelled
            }
        };
        self.keep_cancelled(key, id);
        self.hear(told);
        Ok(match end {
            End::Cancelled => WaitCancelled::Cancelled,
            end => WaitCancelled::Over(end),
        })
    }

    fn revoke(&mut self, revoke: &Revoke, told: Told<'_>) -> Outcome<Vec<Member>> {
        let key = &revoke.key;
        let of = |token: Option<u64>| revoke.only.is_none_or(|only| Some(only) == token);
        let holders = self.holders(key).into_iter().filter(|m| of(token_of(m)));
        let revoked: Vec<Member> = holders.take(MEMBERS_REVOKED_MAX).cloned().collect();
        if revoked.is_empty() {
            return Err(Refusal::NotFound {
                subject: Subject::Lock,
                name: key.to_string(),
            });
        }
        for member in &revoked {
            let at = self.find(key, member.id.id).expect("it holds");
            let end = End::Revoked {
                fencing_token: token_of(member).expect("it holds"),
                by: revoke.by.clone(),
            };
            self.end(at, end);
        }
        self.hear(told);
        Ok(revoked)
    }

    fn proclaim(&mut self, asked: &Proclaim, told: Told<'_>, actual: &Reply) -> Outcome<Member> {
        let holds = self.hold_of(&asked.key, asked.fencing_token)?;
        let of_hold = |member: &&Member| holds.iter().any(|hold| hold.id == member.id);
        let spoke = proclaimed(actual).filter(of_hold);
        let id = spoke.expect("one of the hold speaks").id.id;
        let at = self.find(&asked.key, id).expect("it holds");
        let member = &mut self.parties[at].member;
        member.metadata.clone_from(&asked.metadata);
        let notice = Notice::LockProclaimed {
            key: asked.key.clone(),
            fencing_token: asked.fencing_token,
        };
        assert_eq!(told.pop_front(), Some(notice), "{asked:?} is told");
        Ok(self.parties[at].member.clone())
    }
}

fn release_of(action: &Action) -> Option<&Release> {
    match action {
        Action::Lock(LockCommand::Release(release)) => Some(release),
        _ => None,
    }
}

fn or_panic(actual: &Reply) -> Response {
    let Reply(Ok(response)) = actual else {
        panic!("{actual:?} to a command that is never refused");
    };
    response.clone()
}

fn acquired(actual: &Reply) -> Option<&Acquired> {
    match &actual.0 {
        Ok(Response::Lock(lock::Response::Acquire(acquired))) => Some(acquired),
        _ => None,
    }
}

fn granted(actual: &Reply) -> Option<&Member> {
    match acquired(actual)? {
        Acquired::Granted(member) => Some(member),
        _ => None,
    }
}

fn ended(actual: &Reply) -> Option<&End> {
    match acquired(actual)? {
        Acquired::Over(end) => Some(end),
        _ => None,
    }
}

fn proclaimed(actual: &Reply) -> Option<&Member> {
    match &actual.0 {
        Ok(Response::Lock(lock::Response::Proclaim(member))) => Some(member),
        _ => None,
    }
}
