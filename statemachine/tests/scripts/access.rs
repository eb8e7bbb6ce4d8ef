//! Words of access control.
//!
//! ```text
//! put-user user=ann roles=r1,r2 [certificate=yes]   delete-user user=ann
//! put-role role=r1 VERB:NOUN:PREFIX ...             delete-role role=r1    (NOUN `*` for all)
//! put-token id=t1 user=ann secret=s [ttl=1h]        revoke-token id=t1
//! enable-access disable-access
//! access users roles tokens user=ann
//! ```

use quorate_statemachine::access::{
    self, DeleteRole, DeleteUser, Disable, Enable, Noun, PutRole, PutToken, PutUser, RevokeToken,
    Role, RoleList, Rule, StatusOf, TokensOf, User, UserList, Verb,
};
use quorate_statemachine::tables::{
    Access, AccessRow, PREFIX_BYTES, Roles, Table, Tokens, TokensByUser, Users, token_id_of,
};
use quorate_statemachine::{Action, Name, Timestamp};

use crate::args::{Args, Bad, parse_duration};
use crate::dump::row;
use crate::print;

pub fn action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "put-user" => PutUser { user: user(args)? }.into(),
        "delete-user" => DeleteUser {
            user: args.name("user")?,
        }
        .into(),
        "put-role" => PutRole { role: role(args)? }.into(),
        "delete-role" => DeleteRole {
            role: args.name("role")?,
        }
        .into(),
        "put-token" => PutToken {
            id: args.name("id")?,
            user: args.name("user")?,
            hash: hash(&args.required("secret")?),
            ttl_ms: args
                .optional("ttl")
                .map(|ttl| parse_duration(&ttl))
                .transpose()?,
        }
        .into(),
        "revoke-token" => RevokeToken {
            id: args.name("id")?,
        }
        .into(),
        "enable-access" => Enable {}.into(),
        "disable-access" => Disable {}.into(),
        _ => return Ok(None),
    }))
}

pub fn query(word: &str, args: &mut Args) -> Result<Option<access::Query>, Bad> {
    let (after, limit) = (None, 0);
    Ok(Some(match word {
        "access" => access::Query::Status(StatusOf {}),
        "users" => access::Query::Users(UserList { after, limit }),
        "roles" => access::Query::Roles(RoleList {
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        "tokens" => access::Query::Tokens(TokensOf {
            user: args.name("user")?,
        }),
        _ => return Ok(None),
    }))
}

fn user(args: &mut Args) -> Result<User, Bad> {
    Ok(User {
        name: args.name("user")?,
        roles: args.names("roles")?,
        certificate: args.text("certificate") == "yes",
    })
}

fn role(args: &mut Args) -> Result<Role, Bad> {
    let name = args.name("role")?;
    let mut rules = Vec::new();
    while let Some(word) = args.word() {
        rules.push(rule(&word)?);
    }
    Ok(Role { name, rules })
}

fn rule(word: &str) -> Result<Rule, Bad> {
    let mut parts = word.splitn(3, ':');
    let mut part = || parts.next().ok_or("a rule is VERB:NOUN:PREFIX");
    let (verb, noun, prefix) = (part()?, part()?, part()?);
    let verb = Verb::ALL.into_iter().find(|known| known.as_str() == verb);
    let known = Noun::ALL.into_iter().find(|known| known.as_str() == noun);
    if noun != "*" && known.is_none() {
        return Err(format!("{noun:?} is no noun").into());
    }
    Ok(Rule {
        noun: known,
        prefix: prefix.to_owned(),
        verb: verb.ok_or("no such verb")?,
    })
}

/// Stands for a hash: the text's own bytes.
pub fn hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    let length = secret.len().min(hash.len());
    hash[..length].copy_from_slice(&secret.as_bytes()[..length]);
    hash
}

pub fn response(response: &access::Response) -> String {
    use access::Response;
    match response {
        Response::PutUser(user) => format!("put {}", user_row(user)),
        Response::DeleteUser(deleted) => format!(
            "deleted existed={} tokens={}",
            deleted.existed, deleted.tokens
        ),
        Response::PutRole(role) => format!("put {}", role_row(role)),
        Response::DeleteRole(existed) => format!("deleted existed={existed}"),
        Response::PutToken(put) => format!("token until {}", end(put.expires_at)),
        Response::RevokeToken(revoked) => match &revoked.user {
            Some(user) => format!("revoked a token of {user}"),
            None => "no such token".to_owned(),
        },
        Response::Enable(new) => format!("on new={new}"),
        Response::Disable(new) => format!("off new={new}"),
    }
}

pub fn answer(answer: &access::Answer) -> String {
    use access::Answer;
    match answer {
        Answer::Status(status) => format!("{status:?}"),
        Answer::Users(page) => print::page(page, user_row),
        Answer::Roles(page) => print::page(page, role_row),
        Answer::Tokens(None) => "no such user".to_owned(),
        Answer::Tokens(Some(tokens)) => {
            let line = |token: &access::TokenView| {
                let (id, end) = (&token.id, end(token.expires_at));
                let (made, live) = (token.created_at.0, token.live);
                format!(
                    "{id} user={} made={made} until={end} live={live}",
                    token.user
                )
            };
            print::numbered(tokens.iter().map(line))
        }
    }
}

fn end(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.0.to_string())
}

fn names(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}

fn user_row(user: &User) -> String {
    let (name, roles) = (&user.name, names(&user.roles));
    format!("{name} roles={roles} certificate={}", user.certificate)
}

fn role_row(role: &Role) -> String {
    let rules = role.rules.iter().map(|rule| {
        let noun = rule.noun.map_or("*", Noun::as_str);
        format!(" {}:{noun}:{}", rule.verb, rule.prefix)
    });
    format!("{}{}", role.name, rules.collect::<String>())
}

/// A row of a table of this noun.
pub fn line(tag: u8, key: &[u8], value: &[u8]) -> Result<String, Bad> {
    Ok(match tag {
        Access::TAG => {
            let AccessRow {
                enabled,
                changed_index,
                users,
                roles,
                tokens,
            } = row::<Access>(value)?;
            format!(
                "enabled={enabled} changed_index={changed_index} users={users} roles={roles} \
                 tokens={tokens}"
            )
        }
        Users::TAG => user_row(&row::<Users>(value)?),
        Roles::TAG => role_row(&row::<Roles>(value)?),
        Tokens::TAG => {
            let token = row::<Tokens>(value)?;
            let secret = String::from_utf8_lossy(&token.hash).into_owned();
            let secret = secret.trim_end_matches('\0');
            let (made, end) = (token.created_at.0, end(token.expires_at));
            let (id, user) = (token.id, token.user);
            format!("{id} user={user} hash-of={secret} made={made} until={end}")
        }
        TokensByUser::TAG => {
            row::<TokensByUser>(value)?;
            let user = crate::dump::name(&key[PREFIX_BYTES..]);
            let user = user.split('\0').next().unwrap_or_default().to_owned();
            format!("{user} {}", token_id_of(key)?)
        }
        _ => return Err(format!("access table {tag:#04x} has no decoder here").into()),
    })
}
