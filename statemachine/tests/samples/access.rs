//! Access control: what it takes and answers, and its rows.

use quorate_statemachine::access::{
    Answer, Command, DeleteRole, DeleteUser, Disable, Enable, Noun, PutRole, PutToken, PutUser,
    Query, Response, RevokeToken, Role, RoleList, Rule, Status, StatusOf, Token, TokenPut,
    TokenRevoked, TokenView, TokensOf, User, UserDeleted, UserList, Verb,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::tables::{self, AccessRow};
use quorate_statemachine::{Action, Refusal, Timestamp};

use super::name;
use super::rows::row;

fn user() -> User {
    User {
        name: name("ci"),
        roles: vec![name("builder")],
        certificate: true,
    }
}

fn role() -> Role {
    let rule = Rule {
        noun: Some(Noun::Lock),
        prefix: "build/".to_owned(),
        verb: Verb::Write,
    };
    Role {
        name: name("builder"),
        rules: vec![rule, Rule::everything()],
    }
}

fn token() -> Token {
    Token {
        id: name("t1"),
        user: name("ci"),
        hash: [7; 32],
        created_at: Timestamp(1_000),
        expires_at: Some(Timestamp(9_000)),
    }
}

pub fn access_actions() -> Vec<Action> {
    vec![
        PutUser { user: user() }.into(),
        DeleteUser { user: name("ci") }.into(),
        PutRole { role: role() }.into(),
        DeleteRole {
            role: name("builder"),
        }
        .into(),
        PutToken {
            id: name("t1"),
            user: name("ci"),
            hash: [7; 32],
            ttl_ms: Some(8_000),
        }
        .into(),
        RevokeToken { id: name("t1") }.into(),
        Enable {}.into(),
        Disable {}.into(),
    ]
}

pub fn access_responses() -> Vec<(&'static str, Response)> {
    let responses = vec![
        Response::PutUser(user()),
        Response::DeleteUser(UserDeleted {
            existed: true,
            tokens: 2,
        }),
        Response::PutRole(role()),
        Response::DeleteRole(true),
        Response::PutToken(TokenPut {
            expires_at: Some(Timestamp(9_000)),
        }),
        Response::RevokeToken(TokenRevoked {
            user: Some(name("ci")),
        }),
        Response::Enable(true),
        Response::Disable(false),
    ];
    let names = Command::TAGS.iter().map(|(_, name)| *name);
    names.zip(responses).collect()
}

pub fn denied() -> Refusal {
    Refusal::Denied {
        principal: "ci".to_owned(),
        verb: Verb::Admin,
        noun: Noun::Queue,
        key: "jobs".to_owned(),
    }
}

pub fn access_queries() -> Vec<(&'static str, Query)> {
    let limit = 50;
    vec![
        ("access.status", Query::Status(StatusOf {})),
        (
            "access.users",
            Query::Users(UserList {
                after: Some(name("ci")),
                limit,
            }),
        ),
        (
            "access.roles",
            Query::Roles(RoleList {
                after: Some(name("builder")),
                limit,
            }),
        ),
        (
            "access.tokens",
            Query::Tokens(TokensOf { user: name("ci") }),
        ),
    ]
}

pub fn access_answers() -> Vec<(&'static str, Answer)> {
    let next = Some("next".to_owned());
    let status = Status {
        enabled: true,
        changed_index: 300,
        users: 1,
        roles: 2,
        tokens: 3,
    };
    let users = Page {
        rows: vec![user()],
        next: next.clone(),
    };
    let roles = Page {
        rows: vec![role()],
        next,
    };
    let view = TokenView {
        id: name("t1"),
        user: name("ci"),
        created_at: Timestamp(1_000),
        expires_at: Some(Timestamp(9_000)),
        live: true,
    };
    vec![
        ("access.status", Answer::Status(status)),
        ("access.users", Answer::Users(users)),
        ("access.roles", Answer::Roles(roles)),
        ("access.tokens", Answer::Tokens(Some(vec![view]))),
    ]
}

pub fn access_rows() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let access = AccessRow {
        enabled: true,
        changed_index: 300,
        users: 1,
        roles: 2,
        tokens: 3,
    };
    let (ci, t1) = (name("ci"), name("t1"));
    vec![
        row(tables::access_key(), &access),
        row(tables::user_key("ci"), &user()),
        row(tables::role_key("builder"), &role()),
        row(tables::token_key(&t1), &token()),
        row(tables::token_of_user_key(&ci, &t1), &()),
    ]
}
