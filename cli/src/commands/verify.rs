//! `quorate verify`: do all members have the same state at one log index?

use futures::future::join_all;
use quorate_client::admin::{Admin, Digest, Member};
use quorate_client::{Client, ClientError};
use quorate_statemachine::Command;
use quorate_statemachine::cluster::RecordDigest;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Printer, Row};

/// Marks to set at most: a member that passes a mark by a snapshot keeps no digest there.
const MARKS_MAX: u32 = 3;

/// Marks a place in the log and compares every member's digest of the state there.
pub async fn run(client: &Client, admin: &Admin, printer: &mut Printer) -> Result<(), Failure> {
    let mut compared = compare(client, admin).await?;
    for _ in 1..MARKS_MAX {
        if !compared
            .iter()
            .any(|row| row.problem.as_deref() == Some(PASSED_BY))
        {
            break;
        }
        compared = compare(client, admin).await?;
    }
    printer.list(&compared)?;
    verdict(&compared)
}

/// One mark, and what each member says of it.
async fn compare(client: &Client, admin: &Admin) -> Result<Vec<DigestRow>, Failure> {
    let (index, _) = client
        .execute_command(Command::from(RecordDigest {}))
        .await?;
    let members = admin.members(false).await?.members;
    let wait = client
        .deadline()
        .saturating_duration_since(tokio::time::Instant::now())
        / 2;
    let asked = members
        .iter()
        .map(|member| admin.digest_at(&member.client_addr, index, wait));
    let answers = join_all(asked).await;
    let row = |(member, answer): (&Member, Result<Digest, ClientError>)| {
        let answer = answer
            .map(|digest| digest.digest)
            .map_err(|error| error.to_string());
        DigestRow::new(member, index, answer)
    };
    Ok(judged(members.iter().zip(answers).map(row).collect()))
}

const PASSED_BY: &str = "came past this index by a snapshot and kept no digest of it";

#[derive(Debug, Serialize)]
struct DigestRow {
    id: String,
    name: String,
    client: String,
    index: String,
    digest: Option<String>,
    equal: Option<bool>,
    problem: Option<String>,
}

impl DigestRow {
    fn new(member: &Member, index: u64, answer: Result<String, String>) -> Self {
        let (digest, problem) = match answer {
            Ok(digest) if digest.is_empty() => (None, Some(PASSED_BY.to_owned())),
            Ok(digest) => (Some(digest), None),
            Err(problem) => (None, Some(problem)),
        };
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            client: member.client_addr.clone(),
            index: index.to_string(),
            digest,
            equal: None,
            problem,
        }
    }
}

/// Compares each digest with the one that most members have.
fn judged(mut rows: Vec<DigestRow>) -> Vec<DigestRow> {
    let digests: Vec<String> = rows.iter().filter_map(|row| row.digest.clone()).collect();
    let votes = |digest: &&String| digests.iter().filter(|other| other == digest).count();
    let usual = digests.iter().max_by_key(votes).cloned();
    for row in &mut rows {
        row.equal = row
            .digest
            .as_ref()
            .map(|digest| Some(digest) == usual.as_ref());
    }
    rows
}

fn verdict(rows: &[DigestRow]) -> Result<(), Failure> {
    let different = rows.iter().filter(|row| row.equal == Some(false)).count();
    if different > 0 {
        let message = format!(
            "the state of {different} of {} members differs from that of the others: take them out \
             of service and keep their data",
            rows.len()
        );
        return Err(Failure::error("digest_mismatch", message));
    }
    let silent = rows.iter().filter(|row| row.equal.is_none()).count();
    if silent > 0 || rows.is_empty() {
        let message = format!(
            "{silent} of {} members gave no digest to compare",
            rows.len()
        );
        return Err(Failure::new(Exit::Unreachable, "unavailable", message));
    }
    Ok(())
}

impl Row for DigestRow {
    const HEADER: &'static [&'static str] = &[
        "ID", "NAME", "ADDRESS", "INDEX", "DIGEST", "EQUAL", "PROBLEM",
    ];

    fn cells(&self) -> Vec<String> {
        let equal = match self.equal {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        vec![
            self.id.clone(),
            self.name.clone(),
            self.client.clone(),
            self.index.clone(),
            self.digest.clone().unwrap_or_else(|| "-".to_owned()),
            equal.to_owned(),
            self.problem.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn alarming(&self) -> bool {
        self.equal != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Captured, Format};

    fn rows(answers: [Result<&str, &str>; 3]) -> Vec<DigestRow> {
        let member = |id| Member {
            id,
            name: format!("n{id}"),
            ..Member::default()
        };
        let row = |(id, answer): (u64, Result<&str, &str>)| {
            DigestRow::new(
                &member(id),
                7,
                answer.map(str::to_owned).map_err(str::to_owned),
            )
        };
        judged((1..).zip(answers).map(row).collect())
    }

    #[test]
    fn equal_digests_of_all_members_are_the_only_success() {
        assert_eq!(verdict(&rows([Ok("a"), Ok("a"), Ok("a")])), Ok(()));
        let exit = |answers| {
            verdict(&rows(answers))
                .expect_err("not all are equal")
                .exit()
        };
        assert_eq!(exit([Ok("a"), Ok("b"), Ok("a")]), Exit::Error);
        assert_eq!(exit([Ok("a"), Ok("b"), Err("down")]), Exit::Error);
        assert_eq!(exit([Ok("a"), Ok("a"), Err("down")]), Exit::Unreachable);
        assert_eq!(exit([Ok("a"), Ok("a"), Ok("")]), Exit::Unreachable);
        assert!(verdict(&[]).is_err());
    }

    #[test]
    fn the_member_that_differs_from_most_is_named() {
        let captured = Captured::default();
        let rows = rows([Ok("b"), Ok("a"), Ok("a")]);
        captured.printer(Format::Jsonl).list(&rows).expect("memory");
        let printed = captured.take();
        assert_eq!(
            printed.lines().next(),
            Some(
                "{\"id\":\"1\",\"name\":\"n1\",\"client\":\"\",\"index\":\"7\",\"digest\":\"b\",\
                 \"equal\":false,\"problem\":null}"
            )
        );
        assert_eq!(printed.matches("\"equal\":true").count(), 2);
    }
}
