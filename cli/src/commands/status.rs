//! `quorate status`: one row a member, whether it can be reached or not.

use std::time::Duration;

use futures::future::join_all;
use quorate_client::ClientError;
use quorate_client::admin::{Admin, Member, MemberList, NodeStatus};
use quorate_statemachine::Timestamp;
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Printer, Row};
use crate::value::{span, time};

/// One member that does not answer must not hold the others back for long.
pub const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks every member how it is. What a member did not say is null.
pub async fn run(admin: &Admin, printer: &mut Printer) -> Result<(), Failure> {
    let (members, answers) = ask_all(admin).await?;
    Ok(printer.list(&rows(&members, answers))?)
}

/// What a member says of itself.
pub type Answer = Result<NodeStatus, ClientError>;

/// The members, and what each says of itself.
pub async fn ask_all(admin: &Admin) -> Result<(Vec<Member>, Vec<Answer>), ClientError> {
    let members = known_members(admin).await?.members;
    let one = admin.clone().with_timeout(MEMBER_TIMEOUT);
    let asked = members
        .iter()
        .map(|member| one.status_of(&member.client_addr));
    let answers = join_all(asked).await;
    Ok((members, answers))
}

/// Who did not answer, and why; none if all did.
pub fn silent(members: &[Member], answers: &[Answer]) -> Option<String> {
    let silent = members.iter().zip(answers).filter_map(|(member, answer)| {
        let error = answer.as_ref().err()?;
        Some(format!("{} ({error})", member.name))
    });
    let silent: Vec<String> = silent.collect();
    (!silent.is_empty()).then(|| format!("no answer from {}", silent.join(", ")))
}

/// The members as the leader knows them, or while there is none as the first node does.
pub async fn known_members(admin: &Admin) -> Result<MemberList, ClientError> {
    match admin.members(false).await {
        Ok(members) => Ok(members),
        Err(_) => admin.members(true).await,
    }
}

fn rows(members: &[Member], answers: Vec<Answer>) -> Vec<StatusRow> {
    let committed = answers
        .iter()
        .flatten()
        .map(|status| status.committed)
        .max()
        .unwrap_or(0);
    let row = |(member, answer): (&Member, _)| match answer {
        Ok(status) => StatusRow::answered(member, &status, committed),
        Err(error) => StatusRow::unreachable(member, &error),
    };
    members.iter().zip(answers).map(row).collect()
}

#[derive(Debug, Default, Serialize)]
struct StatusRow {
    id: String,
    name: String,
    role: Option<String>,
    voter: bool,
    term: Option<String>,
    last_log: Option<String>,
    committed: Option<String>,
    applied: Option<String>,
    lag: Option<String>,
    snapshot: Option<String>,
    purged: Option<String>,
    digest: Option<String>,
    version: Option<String>,
    healthy: bool,
    problem: Option<String>,
    /// Kinds of the alarms that are on.
    alarms: Vec<String>,
    client: String,
    peer: String,
    http: String,
    leases: Option<String>,
    time: Option<String>,
    uptime_ms: Option<String>,
    #[serde(skip)]
    uptime: String,
}

impl StatusRow {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            voter: member.voter,
            client: member.client_addr.clone(),
            peer: member.peer_addr.clone(),
            http: member.http_addr.clone(),
            ..Self::default()
        }
    }

    /// `committed` is the highest index that any member knows to be committed.
    fn answered(member: &Member, status: &NodeStatus, committed: u64) -> Self {
        let number = |number: u64| Some(number.to_string());
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let stranger = (status.id != member.id)
            .then(|| format!("node {} answers at this member's address", status.id));
        Self {
            role: text(&status.role),
            term: number(status.term),
            last_log: number(status.last_log),
            committed: number(status.committed),
            applied: number(status.applied),
            lag: number(committed.saturating_sub(status.applied)),
            snapshot: number(status.snapshot),
            purged: number(status.purged),
            digest: text(&status.digest),
            version: text(&status.version),
            healthy: status.healthy && stranger.is_none(),
            problem: stranger.or_else(|| text(&status.problem)),
            alarms: status.alarms.iter().map(|it| it.kind.clone()).collect(),
            leases: number(status.leases),
            time: Some(time(Timestamp(status.now_ms))),
            uptime_ms: number(status.uptime_ms),
            uptime: span(status.uptime_ms),
            ..Self::of(member)
        }
    }

    fn unreachable(member: &Member, error: &ClientError) -> Self {
        Self {
            problem: Some(format!("unreachable: {error}")),
            ..Self::of(member)
        }
    }

    fn health(&self) -> String {
        match (&self.problem, self.healthy) {
            (Some(problem), _) => problem.chars().take(60).collect(),
            (None, true) => "ok".to_owned(),
            (None, false) => "not well".to_owned(),
        }
    }
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &[
        "ID", "NAME", "ADDRESS", "ROLE", "TERM", "LAST LOG", "APPLIED", "LAG", "SNAPSHOT",
        "DIGEST", "VERSION", "UPTIME", "HEALTH",
    ];

    fn cells(&self) -> Vec<String> {
        let shown = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        // Twelve of 32 digits tell digests apart; `verify` compares whole ones.
        let digest = shown(&self.digest).chars().take(12).collect();
        vec![
            self.id.clone(),
            self.name.clone(),
            self.client.clone(),
            shown(&self.role),
            shown(&self.term),
            shown(&self.last_log),
            shown(&self.applied),
            shown(&self.lag),
            shown(&self.snapshot),
            digest,
            shown(&self.version),
            self.uptime.clone(),
            self.health(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn alarming(&self) -> bool {
        !self.healthy
    }
}

#[cfg(test)]
mod tests {
    use quorate_client::NodeError;

    use super::*;
    use crate::output::{Captured, Format};

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            peer_addr: format!("h{id}:7401"),
            client_addr: format!("h{id}:7400"),
            http_addr: format!("h{id}:7402"),
            voter: true,
            leader: id == 1,
            matched: 0,
            ..Member::default()
        }
    }

    fn status(id: u64, role: &str, applied: u64) -> NodeStatus {
        NodeStatus {
            id,
            role: role.to_owned(),
            term: 3,
            last_log: applied,
            committed: applied,
            applied,
            digest: "0123456789abcdef0123456789abcdef".to_owned(),
            version: "0.1.0".to_owned(),
            healthy: true,
            uptime_ms: 61_000,
            ..NodeStatus::default()
        }
    }

    fn sample() -> Vec<StatusRow> {
        let gone = NodeError::Unavailable {
            message: "refused".to_owned(),
            retry_after_ms: 0,
            leader: None,
        };
        let answers = vec![
            Ok(status(1, "leader", 40)),
            Ok(status(2, "follower", 38)),
            Err(gone.into()),
        ];
        rows(&[member(1), member(2), member(3)], answers)
    }

    #[test]
    fn every_member_has_a_row_reached_or_not() {
        let captured = Captured::default();
        captured
            .printer(Format::Table)
            .list(&sample())
            .expect("memory");
        assert_eq!(
            captured.take(),
            "ID  NAME  ADDRESS  ROLE      TERM  LAST LOG  APPLIED  LAG  SNAPSHOT  DIGEST        \
             VERSION  UPTIME  HEALTH\n\
             1   n1    h1:7400  leader    3     40        40       0    0         0123456789ab  \
             0.1.0    1m 1s   ok\n\
             2   n2    h2:7400  follower  3     38        38       2    0         0123456789ab  \
             0.1.0    1m 1s   ok\n\
             3   n3    h3:7400  -         -     -         -        -    -         -             \
             -                unreachable: unavailable: refused; not done, try again in 0 \n"
                .replace(" \n", "\n")
        );
    }

    #[test]
    fn the_fields_that_scripts_rely_on_are_there() {
        let rows = serde_json::to_value(sample()).expect("rows are JSON");
        let second = &rows[1];
        for (field, value) in [
            ("id", "2"),
            ("name", "n2"),
            ("role", "follower"),
            ("term", "3"),
            ("last_log", "38"),
            ("applied", "38"),
            ("lag", "2"),
            ("digest", "0123456789abcdef0123456789abcdef"),
            ("version", "0.1.0"),
            ("client", "h2:7400"),
            ("peer", "h2:7401"),
        ] {
            assert_eq!(second[field], value, "{field}");
        }
        assert_eq!(second["healthy"], true);
        assert_eq!(rows[2]["healthy"], false);
        assert_eq!(rows[2]["role"], serde_json::Value::Null);
    }

    #[test]
    fn another_node_at_a_members_address_is_not_that_member() {
        let rows = rows(&[member(1)], vec![Ok(status(9, "leader", 1))]);
        assert!(!rows[0].healthy);
        assert_eq!(
            rows[0].problem.as_deref(),
            Some("node 9 answers at this member's address")
        );
    }
}
