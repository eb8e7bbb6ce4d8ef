//! `quorate access …`

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use quorate_client::{Bearer, Client, ClientError};
use quorate_statemachine::access::{
    DeleteRole, DeleteUser, Disable, Enable, PutRole, PutUser, RevokeToken, RoleList, UserList,
};
use quorate_statemachine::access::{Role, Rule, User};
use quorate_statemachine::{Name, Refusal, Subject};

use super::confirm::confirm;
use crate::args::access::{self as args, Verb};
use crate::exit::Failure;
use crate::output::Printer;

mod rows;

use rows::{NewTokenRow, RoleRow, StatusRow, TokenRow, UserRow};

/// Does one verb.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::Status => status(client, printer).await,
        Verb::Enable { yes } => {
            confirm(yes, "denies every caller what no role allows it")?;
            client.execute(Enable {}).await?;
            status(client, printer).await
        }
        Verb::Disable { yes } => {
            confirm(yes, "lets every caller do everything")?;
            client.execute(Disable {}).await?;
            status(client, printer).await
        }
        Verb::User(verb) => user(client, verb, printer).await,
        Verb::Role(verb) => role(client, verb, printer).await,
        Verb::Token(verb) => token(client, verb, printer).await,
    }
}

async fn status(client: &Client, printer: &mut Printer) -> Result<(), Failure> {
    let status = client.access_status().await?;
    Ok(printer.one(&StatusRow::new(&status))?)
}

async fn user(client: &Client, verb: args::User, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        args::User::List => {
            let (mut rows, mut after) = (Vec::new(), None);
            loop {
                let page = client.access_users(UserList { after, limit: 0 }).await?;
                rows.extend(page.rows.iter().map(UserRow::new));
                match page.next {
                    Some(next) => after = Some(Name::parse("after", next)?),
                    None => return Ok(printer.list(&rows)?),
                }
            }
        }
        args::User::Put(put) => {
            let roles = put
                .roles
                .iter()
                .map(|role| Name::parse("role", role.as_str()));
            let user = User {
                name: Name::parse("user", put.name)?,
                roles: roles.collect::<Result<_, _>>()?,
                certificate: put.certificate,
            };
            let user = client.execute(PutUser { user }).await?;
            Ok(printer.one(&UserRow::new(&user))?)
        }
        args::User::Delete { name, yes } => {
            let user = Name::parse("user", name)?;
            confirm(yes, &format!("deletes user {user} and its tokens"))?;
            let deleted = client.execute(DeleteUser { user: user.clone() }).await?;
            found(deleted.existed, Subject::User, &user)
        }
    }
}

async fn role(client: &Client, verb: args::Role, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        args::Role::List => {
            let (mut rows, mut after) = (Vec::new(), None);
            loop {
                let page = client.access_roles(RoleList { after, limit: 0 }).await?;
                rows.extend(page.rows.iter().map(RoleRow::new));
                match page.next {
                    Some(next) => after = Some(Name::parse("after", next)?),
                    None => return Ok(printer.list(&rows)?),
                }
            }
        }
        args::Role::Put { name, rules } => put_role(client, name, rules, printer).await,
        args::Role::Delete { name, yes } => {
            let role = Name::parse("role", name)?;
            confirm(yes, &format!("deletes role {role}"))?;
            let existed = client.execute(DeleteRole { role: role.clone() }).await?;
            found(existed, Subject::Role, &role)
        }
    }
}

async fn put_role(
    client: &Client,
    name: String,
    rules: Vec<Rule>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let role = Role {
        name: Name::parse("role", name)?,
        rules,
    };
    let role = client.execute(PutRole { role }).await?;
    Ok(printer.one(&RoleRow::new(&role))?)
}

async fn token(client: &Client, verb: args::Token, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        args::Token::List { user } => {
            let user = Name::parse("user", user)?;
            let tokens = client.access_tokens(user.clone()).await?;
            let tokens = tokens.ok_or_else(|| missing(Subject::User, &user))?;
            let rows: Vec<_> = tokens.iter().map(TokenRow::new).collect();
            Ok(printer.list(&rows)?)
        }
        args::Token::Create { user, ttl, out } => {
            let user = Name::parse("user", user)?;
            create(client, &user, ttl, out.as_deref(), printer).await
        }
        args::Token::Revoke { id, yes } => {
            let id = Name::parse("token", id)?;
            confirm(yes, &format!("ends token {id}"))?;
            let revoked = client.execute(RevokeToken { id: id.clone() }).await?;
            found(revoked.user.is_some(), Subject::Token, &id)
        }
    }
}

/// The token is kept before it is made: whatever the outcome, it can be used or revoked.
async fn create(
    client: &Client,
    user: &Name,
    ttl: Option<Duration>,
    out: Option<&Path>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let token = Bearer::mint().map_err(|error| Failure::error("io", error.to_string()))?;
    if let Some(path) = out {
        keep(&token, path)?;
    }
    match client.put_token(&token, user.clone(), ttl).await {
        Ok(put) => Ok(printer.one(&NewTokenRow::new(&token, user, &put, out.is_none()))?),
        Err(error) if error.may_have_happened() => Err(Failure::from(error).and(&format!(
            "token {} may have been made: see `quorate access token list {user}`, and revoke it \
             there if you do not have it",
            token.id()
        ))),
        Err(error) => {
            // It is no token. That a file stays is told by the next try, which finds it.
            let _ = out.map(std::fs::remove_file);
            Err(error.into())
        }
    }
}

/// Writes a token to a new file that only its owner may read.
fn keep(token: &Bearer, path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::error("io", format!("cannot make {}: {error}", path.display()))
    };
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    let written = writeln!(file, "{}", token.expose()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

fn found(existed: bool, subject: Subject, name: &Name) -> Result<(), Failure> {
    if existed {
        return Ok(());
    }
    Err(missing(subject, name))
}

fn missing(subject: Subject, name: &Name) -> Failure {
    Failure::from(ClientError::Refused(Refusal::NotFound {
        subject,
        name: name.to_string(),
    }))
}
