//! `quorate access …`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_statemachine::access::{Noun, Rule, Verb as Level};

/// What to do about access control.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Whether access is controlled, and how many users, roles and tokens there are
    Status,
    /// Hold all callers to their rights from now on; only an administrator can
    #[command(visible_alias = "on")]
    Enable {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let all callers do everything again
    #[command(visible_alias = "off")]
    Disable {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Users: who there is
    #[command(subcommand)]
    User(User),
    /// Roles: what users may do
    #[command(subcommand)]
    Role(Role),
    /// Tokens: how users prove who they are
    #[command(subcommand)]
    Token(Token),
}

/// What to do about users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// All users
    List,
    /// Make a user, or give it other roles: those named, and no others
    Put(PutUser),
    /// Delete a user and its tokens
    Delete {
        /// The user
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A user as it shall be.
#[derive(Debug, Args)]
pub struct PutUser {
    /// The user
    pub name: String,
    /// A role that it has; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// A client certificate whose common name is the user's is proof
    #[arg(long)]
    pub certificate: bool,
}

/// What to do about roles.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// All roles
    List,
    /// Make a role, or give it other rules: those named, and no others
    Put {
        /// The role
        name: String,
        /// VERB:NOUN:PREFIX, as write:lease:build/; may be given several times. VERB is read, write
        /// or admin, each with those before it; NOUN lease, lock, queue, process, session, cluster,
        /// access, or * for all
        #[arg(long = "rule", value_name = "RULE", value_parser = rule)]
        rules: Vec<Rule>,
    },
    /// Delete a role that no user has
    Delete {
        /// The role
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// All tokens of a user, without their secrets
    List {
        /// The user
        user: String,
    },
    /// Make a token and print it; its secret cannot be had again
    Create {
        /// The user
        user: String,
        /// How long it is proof [default: for ever]
        #[arg(long, value_parser = super::duration, value_name = "DURATION")]
        ttl: Option<Duration>,
        /// Write the token to this new file, which only its owner can read, and do not print it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End a token
    Revoke {
        /// Its id
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Reads `write:lease:build/`; `admin:*` and `admin:*:` are everything.
pub fn rule(text: &str) -> Result<Rule, String> {
    let expected = |what: &str, found: &str| {
        format!("{found:?} is no {what}; a rule is VERB:NOUN:PREFIX, as write:lease:build/")
    };
    let mut parts = text.splitn(3, ':');
    let (verb, noun) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let level = Level::ALL.into_iter().find(|level| level.as_str() == verb);
    let known = Noun::ALL.into_iter().find(|known| known.as_str() == noun);
    if known.is_none() && noun != "*" {
        let nouns = Noun::ALL.map(Noun::as_str).join(", ");
        return Err(expected(&format!("noun ({nouns}, or * for all)"), noun));
    }
    Ok(Rule {
        noun: known,
        prefix: parts.next().unwrap_or("").to_owned(),
        verb: level.ok_or_else(|| expected("verb (read, write, admin)", verb))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_verb_a_noun_and_a_prefix() {
        let build = rule("write:lease:build/a:b").expect("a rule");
        assert_eq!(
            (build.verb, build.noun, &*build.prefix),
            (Level::Write, Some(Noun::Lease), "build/a:b")
        );
        for everything in ["admin:*", "admin:*:"] {
            assert_eq!(rule(everything), Ok(Rule::everything()));
        }
        for (bad, word) in [
            ("", "noun"),
            ("write", "noun"),
            ("do:lock:", "verb"),
            ("read:x:", "noun"),
        ] {
            let error = rule(bad).expect_err(bad);
            assert!(error.contains(&format!("is no {word}")), "{error}");
        }
    }
}
