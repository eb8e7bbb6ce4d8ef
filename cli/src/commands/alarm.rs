//! `quorate alarm list`: what the members say an operator should look at.

use quorate_client::admin::{Admin, Alarm, Member};
use quorate_statemachine::Timestamp;
use serde::Serialize;

use super::status::{self, Answer};
use crate::exit::{Exit, Failure};
use crate::output::{Printer, Row};
use crate::value::time;

/// Asks every member. One that does not answer may have alarms too, so that is a failure.
pub async fn run(admin: &Admin, printer: &mut Printer) -> Result<(), Failure> {
    let (members, answers) = status::ask_all(admin).await?;
    printer.list(&rows(&members, &answers))?;
    let Some(silent) = status::silent(&members, &answers) else {
        return Ok(());
    };
    let message = format!("{silent}; it may have alarms too: start it, or replace it for good");
    Err(Failure::new(Exit::Unreachable, "unavailable", message))
}

fn rows(members: &[Member], answers: &[Answer]) -> Vec<AlarmRow> {
    let mut rows = Vec::new();
    for (member, answer) in members.iter().zip(answers) {
        let alarms = answer.iter().flat_map(|status| &status.alarms);
        rows.extend(alarms.map(|alarm| AlarmRow::new(member, alarm)));
    }
    rows
}

#[derive(Debug, Serialize)]
struct AlarmRow {
    id: String,
    name: String,
    kind: String,
    since: String,
    text: String,
}

impl AlarmRow {
    fn new(member: &Member, alarm: &Alarm) -> Self {
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            kind: alarm.kind.clone(),
            since: time(Timestamp(alarm.since_ms)),
            text: alarm.text.clone(),
        }
    }
}

impl Row for AlarmRow {
    const HEADER: &'static [&'static str] = &["ID", "NAME", "ALARM", "SINCE", "TEXT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.kind.clone(),
            self.since.clone(),
            self.text.clone(),
        ]
    }

    fn name(&self) -> String {
        self.kind.clone()
    }

    fn alarming(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use quorate_client::admin::NodeStatus;

    use super::*;
    use crate::output::{Captured, Format};

    #[test]
    fn every_alarm_of_every_member_has_a_row() {
        let member = Member {
            id: 2,
            name: "n2".to_owned(),
            ..Member::default()
        };
        let status = NodeStatus {
            alarms: vec![Alarm {
                kind: "disk_nearly_full".to_owned(),
                text: "make room".to_owned(),
                since_ms: 1_000,
            }],
            ..NodeStatus::default()
        };
        let captured = Captured::default();
        let rows = rows(&[member], &[Ok(status)]);
        captured.printer(Format::Table).list(&rows).expect("memory");
        assert_eq!(
            captured.take(),
            "ID  NAME  ALARM             SINCE                     TEXT\n\
             2   n2    disk_nearly_full  1970-01-01T00:00:01.000Z  make room\n"
        );
    }
}
