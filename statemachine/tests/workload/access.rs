//! Access control: users, roles and tokens come and go, and it is switched on and off.

use quorate_statemachine::access::{
    DeleteRole, DeleteUser, Disable, Enable, Noun, PutRole, PutToken, PutUser, RevokeToken, Role,
    Rule, User, Verb,
};
use quorate_statemachine::{Action, Name};

use super::Random;

/// Few, so that each of them has rights now and then.
const USERS: [&str; 3] = ["ann", "bob", "ci"];

fn user(random: &mut Random) -> Name {
    let user = USERS[random.below(USERS.len() as u64) as usize];
    Name::parse("user", user).expect("a short name")
}

/// Most entries are the cluster's own, which is never denied: the log goes on.
pub fn principal(random: &mut Random, action: &Action) -> Option<&'static str> {
    let one_in = if matches!(action, Action::Access(_)) {
        2
    } else {
        8
    };
    let named = random.below(one_in) == 0;
    named.then(|| USERS[random.below(USERS.len() as u64) as usize])
}

pub fn action(random: &mut Random) -> Action {
    match random.below(12) {
        0..=2 => PutRole { role: role(random) }.into(),
        3..=5 => PutUser {
            user: User {
                name: user(random),
                roles: (0..random.below(3))
                    .map(|_| random.name("role/", 3))
                    .collect(),
                certificate: random.below(2) == 0,
            },
        }
        .into(),
        6 | 7 => PutToken {
            id: random.name("token/", 6),
            user: user(random),
            hash: [random.below(3) as u8; 32],
            ttl_ms: (random.below(3) > 0).then(|| 1 + random.below(100_000)),
        }
        .into(),
        8 => RevokeToken {
            id: random.name("token/", 6),
        }
        .into(),
        9 if random.below(3) == 0 => DeleteUser { user: user(random) }.into(),
        9 => DeleteRole {
            role: random.name("role/", 3),
        }
        .into(),
        10 => Enable {}.into(),
        _ => Disable {}.into(),
    }
}

/// Every other one is an administrator's.
fn role(random: &mut Random) -> Role {
    let rule = Rule {
        noun: (random.below(3) > 0).then(|| Noun::ALL[random.below(7) as usize]),
        prefix: ["", "lock/", "lease/1"][random.below(3) as usize].to_owned(),
        verb: Verb::ALL[random.below(3) as usize],
    };
    let rules = match random.below(2) {
        0 => vec![Rule::everything()],
        _ => vec![rule],
    };
    Role {
        name: random.name("role/", 3),
        rules,
    }
}
