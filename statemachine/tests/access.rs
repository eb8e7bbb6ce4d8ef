//! Who may do what: every command and every query is held to the rights of whoever asks.

mod samples;

use quorate_statemachine::access::{
    Enable, Noun, PutRole, PutUser, Rights, Role, Rule, User, Verb, needs,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Command, Entry, Principal, Refusal, Reply, Timestamp, apply, lease, lock,
};

use samples::name;

/// A state in which access is controlled.
struct Controlled {
    view: MemoryView,
    index: u64,
}

const ADMIN: Principal<'static> = Principal::Named("ann");
const OTHER: Principal<'static> = Principal::Named("ci");

impl Controlled {
    fn new() -> Self {
        let mut state = Self {
            view: MemoryView::default(),
            index: 0,
        };
        state.role("root", vec![Rule::everything()]);
        state.user("ann", "root");
        state.done(Enable {}.into(), ADMIN);
        state
    }

    fn step(&mut self, command: &Command, principal: Principal<'_>) -> Reply {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(1_000),
            command: &command.encode(),
            principal,
        };
        let applied = apply(&self.view, entry).expect("the state is whole");
        self.view.commit(applied.changes);
        applied.reply
    }

    fn done(&mut self, action: Action, principal: Principal<'_>) {
        let reply = self.step(&action.into(), principal);
        assert!(reply.0.is_ok(), "{reply:?}");
    }

    fn role(&mut self, role: &str, rules: Vec<Rule>) {
        let role = Role {
            name: name(role),
            rules,
        };
        self.done(PutRole { role }.into(), Principal::Cluster);
    }

    fn user(&mut self, user: &str, role: &str) {
        let user = User {
            name: name(user),
            roles: vec![name(role)],
            certificate: true,
        };
        self.done(PutUser { user }.into(), Principal::Cluster);
    }

    fn rights<'p>(&self, principal: Principal<'p>) -> Rights<'p> {
        Rights::in_view(&self.view, principal).expect("the state is whole")
    }
}

fn is_denied(reply: &Reply) -> bool {
    matches!(reply, Reply(Err(Refusal::Denied { .. })))
}

/// Gathered renewals answer one by one.
fn is_gathered(action: &Action) -> bool {
    matches!(
        action,
        Action::Lease(lease::Command::RenewMany(_)) | Action::Lock(lock::Command::RenewMany(_))
    )
}

#[test]
fn whoever_has_no_rule_is_denied_every_command_and_changes_nothing() {
    for (sample, command) in samples::commands() {
        if is_gathered(&command.action) {
            continue;
        }
        for principal in [Principal::Anonymous, OTHER] {
            let mut state = Controlled::new();
            let rows = |state: &Controlled| -> Vec<(Vec<u8>, Vec<u8>)> {
                let meta = quorate_statemachine::tables::meta_key();
                let all = state.view.rows();
                let all = all.filter(|(key, _)| *key != meta.bytes());
                all.map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect()
            };
            let before = rows(&state);
            let reply = state.step(&command, principal);
            assert!(is_denied(&reply), "{sample} by {principal}: {reply:?}");
            assert_eq!(
                rows(&state),
                before,
                "{sample} by {principal} changed a row"
            );
        }
    }
}

#[test]
fn an_administrator_and_the_cluster_are_denied_no_command() {
    for (sample, command) in samples::commands() {
        for principal in [ADMIN, Principal::Cluster] {
            let reply = Controlled::new().step(&command, principal);
            assert!(!is_denied(&reply), "{sample} by {principal}: {reply:?}");
        }
    }
}

#[test]
fn each_renewal_of_many_is_denied_by_itself() {
    let mut seen = 0;
    for (sample, command) in samples::commands() {
        if !is_gathered(&command.action) {
            continue;
        }
        seen += 1;
        let reply = Controlled::new().step(&command, OTHER);
        let text = format!("{:?}", reply.0.expect("each has its own answer"));
        assert!(text.contains("Err(Denied"), "{sample}: {text}");
    }
    assert_eq!(seen, 2, "leases and locks gather renewals");
}

#[test]
fn every_query_is_denied_without_a_rule_and_only_reads() {
    let state = Controlled::new();
    for (sample, query) in samples::queries() {
        for principal in [Principal::Anonymous, OTHER] {
            let denied = state.rights(principal).check_query(&query);
            assert!(
                matches!(denied, Err(Refusal::Denied { .. })),
                "{sample} by {principal}"
            );
        }
        assert_eq!(state.rights(ADMIN).check_query(&query), Ok(()), "{sample}");
        let needs = needs::of_query(&query);
        assert!(!needs.is_empty(), "{sample} asks for nothing");
        assert!(
            needs.iter().all(|need| need.verb == Verb::Read),
            "{sample} only reads"
        );
    }
}

#[test]
fn a_level_holds_those_before_it_and_none_behind() {
    let verbs = Verb::ALL;
    for (have, allowed) in verbs.into_iter().zip(0..) {
        for (asked, wanted) in verbs.into_iter().zip(0..) {
            let rule = Rule {
                noun: Some(Noun::Cluster),
                prefix: String::new(),
                verb: have,
            };
            let covered = rule.covers(needs::whole(Noun::Cluster, asked));
            assert_eq!(covered, wanted <= allowed, "{have} for {asked}");
        }
    }
}

#[test]
fn a_rule_with_a_prefix_gives_no_right_on_the_cluster() {
    let mut state = Controlled::new();
    let rule = Rule {
        noun: None,
        prefix: "a".to_owned(),
        verb: Verb::Admin,
    };
    state.role("some", vec![rule]);
    state.user("ci", "some");
    for noun in [Noun::Cluster, Noun::Access] {
        for verb in Verb::ALL {
            let checked = state.rights(OTHER).check(needs::whole(noun, verb));
            assert!(checked.is_err(), "{verb} on {noun}");
        }
    }
}

#[test]
fn a_name_that_reads_like_no_name_is_not_taken_for_none() {
    let mut state = Controlled::new();
    for words in [Principal::Anonymous, Principal::Cluster] {
        state.user(&words.to_string(), "root");
    }
    let claim = samples::commands().remove(0).1;
    assert!(is_denied(&state.step(&claim, Principal::Anonymous)));
}
