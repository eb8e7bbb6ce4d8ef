//! `quorate upgrade`: which commands the cluster may use while its members run different builds.

use quorate_client::admin::{Admin, Member, NodeStatus};
use quorate_client::{Client, ClientError};
use quorate_statemachine::Command;
use quorate_statemachine::cluster::HoldVersion;
use serde::Serialize;

use super::status;
use crate::args::upgrade::Verb;
use crate::exit::{Exit, Failure};
use crate::output::{Printer, Row};

/// Does what is asked for, and shows how it stands then.
pub async fn run(
    client: &Client,
    admin: &Admin,
    verb: &Verb,
    printer: &mut Printer,
) -> Result<(), Failure> {
    match verb {
        Verb::Status => show(admin, printer).await,
        Verb::Hold => hold(client, true).await,
        Verb::Resume => hold(client, false).await,
    }
}

async fn hold(client: &Client, held: bool) -> Result<(), Failure> {
    let command = Command::from(HoldVersion { held });
    client.execute_command(command).await?;
    Ok(())
}

async fn show(admin: &Admin, printer: &mut Printer) -> Result<(), Failure> {
    let (members, answers) = status::ask_all(admin).await?;
    let rows: Vec<BuildRow> = members.iter().zip(&answers).map(BuildRow::new).collect();
    printer.list(&rows)?;
    let Some(silent) = status::silent(&members, &answers) else {
        return Ok(());
    };
    let message = format!(
        "{silent}; the version does not rise until every member has said what it knows: start it, \
         or replace it for good"
    );
    Err(Failure::new(Exit::Unreachable, "unavailable", message))
}

#[derive(Debug, Serialize)]
struct BuildRow {
    id: String,
    name: String,
    build: Option<String>,
    /// The highest version of commands that it knows.
    knows: Option<u32>,
    /// The cluster's version, as the member has applied it.
    cluster_version: Option<u32>,
    /// A higher version waits: for older members, or because it is held.
    state: &'static str,
}

impl BuildRow {
    fn new((member, answer): (&Member, &Result<NodeStatus, ClientError>)) -> Self {
        let (id, name) = (member.id.to_string(), member.name.clone());
        let Ok(status) = answer else {
            return Self {
                id,
                name,
                build: None,
                knows: None,
                cluster_version: None,
                state: "unreachable",
            };
        };
        // A build that does not say it knows version 1.
        let (knows, cluster) = (status.command_version.max(1), status.cluster_version.max(1));
        let state = match () {
            () if knows == cluster => "ok",
            () if knows < cluster => "too old",
            () if status.version_held => "held",
            () => "waits",
        };
        Self {
            id,
            name,
            build: Some(status.version.clone()),
            knows: Some(knows),
            cluster_version: Some(cluster),
            state,
        }
    }
}

impl Row for BuildRow {
    const HEADER: &'static [&'static str] = &["ID", "NAME", "BUILD", "KNOWS", "CLUSTER", "STATE"];

    fn cells(&self) -> Vec<String> {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
        vec![
            self.id.clone(),
            self.name.clone(),
            self.build.clone().unwrap_or_else(|| "-".to_owned()),
            number(self.knows),
            number(self.cluster_version),
            self.state.to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn alarming(&self) -> bool {
        self.state != "ok"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_says_why_the_version_does_not_rise() {
        let member = Member {
            id: 2,
            name: "n2".to_owned(),
            ..Member::default()
        };
        let state = |knows, cluster, held| {
            let status = NodeStatus {
                command_version: knows,
                cluster_version: cluster,
                version_held: held,
                ..NodeStatus::default()
            };
            BuildRow::new((&member, &Ok(status))).state
        };
        assert_eq!(state(0, 0, false), "ok");
        assert_eq!(state(2, 2, false), "ok");
        assert_eq!(state(2, 1, false), "waits");
        assert_eq!(state(2, 1, true), "held");
        assert_eq!(state(1, 2, false), "too old");
    }
}
