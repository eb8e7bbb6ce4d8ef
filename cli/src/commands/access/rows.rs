//! Access control as it is printed.

use quorate_client::Bearer;
use quorate_statemachine::access::{Role, Rule, Status, TokenPut, TokenView, User};
use quorate_statemachine::{Name, Timestamp};
use serde::Serialize;

use crate::output::Row;
use crate::value::time;

/// Whether access is controlled.
#[derive(Debug, Serialize)]
pub struct StatusRow {
    enabled: bool,
    users: String,
    roles: String,
    tokens: String,
    /// Log index of the last change of rights.
    changed_index: String,
}

impl StatusRow {
    pub fn new(status: &Status) -> Self {
        Self {
            enabled: status.enabled,
            users: status.users.to_string(),
            roles: status.roles.to_string(),
            tokens: status.tokens.to_string(),
            changed_index: status.changed_index.to_string(),
        }
    }
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &["ACCESS", "USERS", "ROLES", "TOKENS", "CHANGED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.users.clone(),
            self.roles.clone(),
            self.tokens.clone(),
            self.changed_index.clone(),
        ]
    }

    fn name(&self) -> String {
        let word = if self.enabled { "controlled" } else { "open" };
        word.to_owned()
    }
}

/// A user.
#[derive(Debug, Serialize)]
pub struct UserRow {
    name: String,
    roles: Vec<String>,
    certificate: bool,
}

impl UserRow {
    pub fn new(user: &User) -> Self {
        Self {
            name: user.name.to_string(),
            roles: user.roles.iter().map(Name::to_string).collect(),
            certificate: user.certificate,
        }
    }
}

impl Row for UserRow {
    const HEADER: &'static [&'static str] = &["USER", "ROLES", "CERTIFICATE"];

    fn cells(&self) -> Vec<String> {
        let certificate = if self.certificate { "proof" } else { "-" };
        vec![
            self.name.clone(),
            or_dash(self.roles.join(" ")),
            certificate.to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A role.
#[derive(Debug, Serialize)]
pub struct RoleRow {
    name: String,
    rules: Vec<String>,
}

impl RoleRow {
    pub fn new(role: &Role) -> Self {
        Self {
            name: role.name.to_string(),
            rules: role.rules.iter().map(rule_text).collect(),
        }
    }
}

/// As `--rule` takes it.
fn rule_text(rule: &Rule) -> String {
    let noun = rule.noun.map_or("*", |noun| noun.as_str());
    format!("{}:{noun}:{}", rule.verb, rule.prefix)
}

impl Row for RoleRow {
    const HEADER: &'static [&'static str] = &["ROLE", "RULES"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), or_dash(self.rules.join(" "))]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A token without its secret.
#[derive(Debug, Serialize)]
pub struct TokenRow {
    id: String,
    user: String,
    created_at: String,
    expires_at: Option<String>,
    live: bool,
}

impl TokenRow {
    pub fn new(token: &TokenView) -> Self {
        Self {
            id: token.id.to_string(),
            user: token.user.to_string(),
            created_at: time(token.created_at),
            expires_at: token.expires_at.map(time),
            live: token.live,
        }
    }
}

impl Row for TokenRow {
    const HEADER: &'static [&'static str] = &["TOKEN", "USER", "CREATED", "EXPIRES", "STATE"];

    fn cells(&self) -> Vec<String> {
        let state = if self.live { "live" } else { "over" };
        vec![
            self.id.clone(),
            self.user.clone(),
            self.created_at.clone(),
            or_never(self.expires_at.as_ref()),
            state.to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

/// A token that was just made: the one time that its secret is shown, unless a file has it.
#[derive(Serialize)]
pub struct NewTokenRow {
    id: String,
    user: String,
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl NewTokenRow {
    pub fn new(token: &Bearer, user: &Name, put: &TokenPut, shown: bool) -> Self {
        let time = |at: Timestamp| time(at);
        Self {
            id: token.id().to_string(),
            user: user.to_string(),
            expires_at: put.expires_at.map(time),
            token: shown.then(|| token.expose()),
        }
    }
}

impl Row for NewTokenRow {
    const HEADER: &'static [&'static str] = &["ID", "USER", "EXPIRES", "TOKEN"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.user.clone(),
            or_never(self.expires_at.as_ref()),
            self.token
                .clone()
                .unwrap_or_else(|| "in the file".to_owned()),
        ]
    }

    /// What a script wants to have.
    fn name(&self) -> String {
        self.token.clone().unwrap_or_else(|| self.id.clone())
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

fn or_never(at: Option<&String>) -> String {
    at.cloned().unwrap_or_else(|| "never".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::access::rule;

    #[test]
    fn a_rule_is_printed_as_it_is_typed() {
        for text in ["admin:*:", "write:lease:build/", "read:cluster:"] {
            assert_eq!(rule(text).as_ref().map(rule_text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_token_that_a_file_has_is_not_printed() {
        let token = Bearer::mint().expect("random numbers");
        let user = Name::parse("user", "ci").expect("a name");
        let put = TokenPut { expires_at: None };
        let row = |shown| NewTokenRow::new(&token, &user, &put, shown);
        let shown = |row: &NewTokenRow| {
            let json = serde_json::to_string(row).expect("it is JSON");
            [row.cells().join(" "), row.name(), json].map(|text| text.contains(&token.expose()))
        };
        assert_eq!(shown(&row(true)), [true; 3]);
        assert_eq!(shown(&row(false)), [false; 3]);
    }
}
