//! `quorate audit`: who did what and when, from the log of one node.

use quorate_client::admin::{Admin, AuditPage, AuditRequest, AuditRow, AuditWho};
use quorate_statemachine::Timestamp;
use serde::Serialize;

use crate::args::audit::Audit;
use crate::args::millis;
use crate::exit::Failure;
use crate::output::{Printer, Row};
use crate::value::time;

/// Subjects that a table shows of a row.
const SHOWN: usize = 3;

/// Prints rows page by page; where the log begins and where to go on is said on stderr.
pub async fn run(admin: &Admin, args: Audit, printer: &mut Printer) -> Result<(), Failure> {
    let mut asked = AuditRequest {
        after: args.after,
        principal: args.user.unwrap_or_default(),
        anonymous: args.anonymous,
        key_prefix: args.prefix.unwrap_or_default(),
        command: args.command.unwrap_or_default(),
        since_ms: args.since.map_or(0, millis),
        before_ms: args.before.map_or(0, millis),
        ticks: args.ticks,
        limit: 0,
    };
    let mut rows = Vec::new();
    loop {
        asked.limit = args.limit - u32::try_from(rows.len()).unwrap_or(args.limit);
        let page = admin.audit(asked.clone()).await?;
        if rows.is_empty() && asked.after == args.after {
            tell_beginning(args.after, &page);
        }
        rows.extend(page.rows.iter().map(EntryRow::new));
        match page.next_after {
            None => break,
            Some(next) if rows.len() >= args.limit as usize => {
                eprintln!("there may be more: go on with --after {next}");
                break;
            }
            Some(next) => asked.after = next,
        }
    }
    Ok(printer.list(&rows)?)
}

fn tell_beginning(after: u64, page: &AuditPage) {
    if after.saturating_add(1) >= page.first_index {
        return;
    }
    let at = match page.first_at_ms {
        0 => String::new(),
        at_ms => format!(", {}", time(Timestamp(at_ms))),
    };
    eprintln!(
        "the log of {} begins at entry {}{at}: a snapshot has taken the place of what was before, \
         and who did that is not known here",
        page.node, page.first_index
    );
}

/// What one entry did.
#[derive(Debug, Serialize)]
struct EntryRow {
    index: String,
    at: String,
    /// Null for callers without a name, for the cluster, and where it was not recorded.
    principal: Option<String>,
    /// `named`, `anonymous`, `cluster` or `unrecorded`.
    who: &'static str,
    command: String,
    subjects: Vec<SubjectRow>,
    more_subjects: String,
    /// Null where this node does not know it any more.
    outcome: Option<String>,
    trace: Option<String>,
}

#[derive(Debug, Serialize)]
struct SubjectRow {
    noun: String,
    key: String,
}

impl EntryRow {
    fn new(row: &AuditRow) -> Self {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let subjects = row.subjects.iter().map(|subject| SubjectRow {
            noun: subject.noun.clone(),
            key: subject.key.clone(),
        });
        Self {
            index: row.index.to_string(),
            at: time(Timestamp(row.at_ms)),
            principal: given(&row.principal),
            who: match row.who() {
                AuditWho::Named => "named",
                AuditWho::Anonymous => "anonymous",
                AuditWho::Cluster => "cluster",
                AuditWho::Unrecorded | AuditWho::Unspecified => "unrecorded",
            },
            command: row.command.clone(),
            subjects: subjects.collect(),
            more_subjects: row.more_subjects.to_string(),
            outcome: given(&row.outcome),
            trace: given(&row.trace),
        }
    }

    fn subjects(&self) -> String {
        let shown = self.subjects.iter().take(SHOWN);
        let mut text: Vec<_> = shown
            .map(|subject| {
                format!("{} {}", subject.noun, subject.key)
                    .trim()
                    .to_owned()
            })
            .collect();
        let more = self.subjects.len().saturating_sub(SHOWN);
        let left_out = self.more_subjects.parse::<usize>().unwrap_or_default();
        if more + left_out > 0 {
            text.push(format!("{} more", more + left_out));
        }
        text.join(", ")
    }
}

impl Row for EntryRow {
    const HEADER: &'static [&'static str] = &["INDEX", "AT", "WHO", "COMMAND", "ABOUT", "OUTCOME"];

    fn cells(&self) -> Vec<String> {
        let who = match (&self.principal, self.who) {
            (Some(name), _) => name.clone(),
            (None, who) => format!("({who})"),
        };
        let outcome = self.outcome.clone().unwrap_or_else(|| "?".to_owned());
        vec![
            self.index.clone(),
            self.at.clone(),
            who,
            self.command.clone(),
            self.subjects(),
            outcome,
        ]
    }

    fn name(&self) -> String {
        self.index.clone()
    }

    fn alarming(&self) -> bool {
        self.outcome.as_deref() == Some("denied")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::admin::AuditSubject;

    #[test]
    fn a_row_tells_who_and_what_and_how_many_more() {
        let subjects = ["a", "b", "c", "d"].map(|key| AuditSubject {
            noun: "lease".to_owned(),
            key: key.to_owned(),
        });
        let mut row = AuditRow {
            index: 7,
            principal: "ci".to_owned(),
            command: "lease.claim".to_owned(),
            subjects: subjects.to_vec(),
            more_subjects: 2,
            outcome: "denied".to_owned(),
            ..AuditRow::default()
        };
        row.set_who(AuditWho::Named);
        let shown = EntryRow::new(&row);
        assert!(shown.alarming());
        assert_eq!(
            shown.cells()[2..],
            [
                "ci",
                "lease.claim",
                "lease a, lease b, lease c, 3 more",
                "denied"
            ]
        );
        row.principal.clear();
        row.set_who(AuditWho::Anonymous);
        let shown = EntryRow::new(&row);
        assert_eq!(shown.cells()[2], "(anonymous)");
        let json = serde_json::to_value(&shown).expect("it is JSON");
        assert!(json["principal"].is_null(), "{json}");
    }
}
