//! What an audit tells of an entry: which things its command is about, and how it ended.

use std::collections::BTreeSet;

use super::{Noun, needs};
use crate::command::{Action, Command, Reply, Response};
use crate::refusal::Refusal;
use crate::{access, cluster, lease, lock};

/// The things that a command is about, each once, in the command's order: a noun and a key. Of
/// access control the key is the user, role or token; of the cluster what is done, if it is told.
#[must_use]
pub fn subjects(command: &Command) -> Vec<(Noun, String)> {
    let mut subjects = Vec::new();
    add(&command.action, &mut subjects);
    let mut seen = BTreeSet::new();
    subjects.retain(|subject| seen.insert(subject.clone()));
    subjects
}

/// What a command does: its name, and of several in one also theirs, each once.
#[must_use]
pub fn names(action: &Action) -> String {
    let mut names = vec![action.name()];
    if let Action::Composite(steps) = action {
        let of_steps: BTreeSet<_> = steps.iter().map(Action::name).collect();
        names.extend(of_steps);
    }
    names.join(" ")
}

fn add(action: &Action, to: &mut Vec<(Noun, String)>) {
    match action {
        Action::Lease(lease::Command::RenewMany(many)) => {
            let keys = many.renewals.iter().map(|renew| renew.key.to_string());
            to.extend(keys.map(|key| (Noun::Lease, key)));
        }
        Action::Lock(lock::Command::RenewMany(many)) => {
            let keys = many.renewals.iter().map(|renew| renew.key.to_string());
            to.extend(keys.map(|key| (Noun::Lock, key)));
        }
        Action::Cluster(cluster::Command::NoteAction(note)) => {
            to.push((Noun::Cluster, note.action.clone()));
        }
        Action::Access(command) => to.push((Noun::Access, of_access(command))),
        Action::Composite(steps) => steps.iter().for_each(|step| add(step, to)),
        Action::Lease(_)
        | Action::Lock(_)
        | Action::Queue(_)
        | Action::Process(_)
        | Action::Session(_)
        | Action::Cluster(_) => {
            let needs = needs::of_action(action).into_iter();
            to.extend(needs.map(|need| (need.noun, need.key.to_owned())));
        }
    }
}

fn of_access(command: &access::Command) -> String {
    use access::Command;
    match command {
        Command::PutUser(put) => put.user.name.to_string(),
        Command::DeleteUser(delete) => delete.user.to_string(),
        Command::PutRole(put) => put.role.name.to_string(),
        Command::DeleteRole(delete) => delete.role.to_string(),
        Command::PutToken(put) => format!("{}/{}", put.user, put.id),
        Command::RevokeToken(revoke) => revoke.id.to_string(),
        Command::Enable(_) | Command::Disable(_) => String::new(),
    }
}

/// How a command ended, in a word: `ok`, `busy` when others have what it asked for, `partly` when
/// some of several were refused, else the code of the refusal.
#[must_use]
pub fn outcome(reply: &Reply) -> &'static str {
    match &reply.0 {
        Err(refusal) => refusal.code(),
        Ok(
            Response::Lease(lease::Response::Claim(lease::Claimed::Busy(_)))
            | Response::Lock(lock::Response::Acquire(lock::Acquired::Busy(_))),
        ) => "busy",
        Ok(Response::Lease(lease::Response::RenewMany(answers))) => of_several(answers),
        Ok(Response::Lock(lock::Response::RenewMany(answers))) => of_several(answers),
        Ok(_) => OK,
    }
}

/// What [`outcome`] says of a command that was done.
pub const OK: &str = "ok";

fn of_several<T>(answers: &[Result<T, Refusal>]) -> &'static str {
    match answers.iter().find_map(|answer| answer.as_ref().err()) {
        None => OK,
        Some(refusal) if answers.iter().all(Result::is_err) => refusal.code(),
        Some(_) => "partly",
    }
}

/// Whether it is a command that the cluster can give by itself, without anybody who asked.
#[must_use]
pub fn is_own(action: &Action) -> bool {
    use cluster::Command;
    matches!(
        action,
        Action::Access(access::Command::Disable(_))
            | Action::Cluster(
                Command::Tick(_)
                    | Command::Found(_)
                    | Command::AllocateNodeId(_)
                    | Command::SetVersion(_)
                    | Command::RecordDigest(_)
            )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LeaseToken, Name, Owner};
    use crate::lease::{Claim, Release, Renew, RenewMany, SameOwner};

    fn name(text: &str) -> Name {
        Name::parse("name", text).expect("a name")
    }

    fn token() -> LeaseToken {
        LeaseToken::parse("t").expect("a token")
    }

    fn renew(key: &str) -> Renew {
        Renew {
            key: name(key),
            lease_token: token(),
            fencing_token: 1,
            ttl_ms: 1,
        }
    }

    #[test]
    fn a_command_tells_what_it_is_about_and_each_thing_once() {
        let claim = Claim {
            key: name("a"),
            owner: Owner::new(name("o"), name("o")),
            lease_token: token(),
            ttl_ms: 1,
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        };
        let release = Release {
            key: name("a"),
            lease_token: token(),
            fencing_token: 1,
        };
        let steps = vec![claim.into(), release.into(), renew("b").into()];
        let told = subjects(&Action::Composite(steps).into());
        let leases = |keys: [&str; 2]| keys.map(|key| (Noun::Lease, key.to_owned()));
        assert_eq!(told, leases(["a", "b"]));
        let steps = vec![renew("a").into(), renew("b").into()];
        assert_eq!(names(&Action::Composite(steps)), "composite lease.renew");
        let many = RenewMany {
            renewals: vec![renew("x"), renew("y")],
        };
        assert_eq!(subjects(&Action::from(many).into()), leases(["x", "y"]));
        let deleted = access::DeleteUser { user: name("ann") };
        let told = subjects(&Action::from(deleted).into());
        assert_eq!(told, [(Noun::Access, "ann".to_owned())]);
    }

    #[test]
    fn of_several_answers_some_may_be_refused() {
        let refused = || {
            Err(Refusal::RequestTooOld {
                floor: 2,
                not_before: 1,
            })
        };
        assert_eq!(of_several(&[Ok(()), Ok(())]), OK);
        assert_eq!(of_several(&[Ok(()), refused()]), "partly");
        assert_eq!(of_several::<()>(&[refused(), refused()]), "outcome_unknown");
    }
}
