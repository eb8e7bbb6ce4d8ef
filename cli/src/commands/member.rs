//! `quorate member …`

use quorate_client::admin::{AddMemberRequest, Admin, Member, MemberChange};
use serde::Serialize;

use super::confirm::confirm;
use super::status::known_members;
use crate::args::member::{Add, Verb};
use crate::exit::Failure;
use crate::output::{Printer, Row};

/// Does one verb.
pub async fn run(admin: &Admin, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List => {
            let members = known_members(admin).await?.members;
            let rows: Vec<_> = members.iter().map(MemberRow::new).collect();
            Ok(printer.list(&rows)?)
        }
        Verb::Add(args) => add(admin, args, printer).await,
        Verb::Promote { id, dry_run } => {
            changed(&admin.promote_member(id, dry_run).await?, dry_run, printer)
        }
        Verb::Remove { id, yes, dry_run } => {
            if !dry_run {
                confirm(
                    yes,
                    &format!("takes member {id} out of the cluster for good"),
                )?;
            }
            changed(&admin.remove_member(id, dry_run).await?, dry_run, printer)
        }
        Verb::TransferLeader { id, dry_run } => {
            changed(&admin.transfer_leader(id, dry_run).await?, dry_run, printer)
        }
    }
}

async fn add(admin: &Admin, args: Add, printer: &mut Printer) -> Result<(), Failure> {
    let request = AddMemberRequest {
        name: args.name,
        peer_addr: args.peer,
        client_addr: args.client,
        http_addr: args.http,
        promote: args.promote,
        dry_run: args.dry_run,
    };
    changed(&admin.add_member(request).await?, args.dry_run, printer)
}

fn changed(change: &MemberChange, dry_run: bool, printer: &mut Printer) -> Result<(), Failure> {
    let shown = ChangeShown::new(change, dry_run);
    let text = match printer.format() {
        crate::output::Format::Name => shown.id.clone(),
        _ => shown.text(),
    };
    Ok(printer.value(&shown, &text)?)
}

/// What was done or would be done.
#[derive(Debug, Serialize)]
struct ChangeShown {
    id: String,
    dry_run: bool,
    plan: Vec<String>,
    members: Vec<MemberRow>,
}

impl ChangeShown {
    fn new(change: &MemberChange, dry_run: bool) -> Self {
        Self {
            id: change.id.to_string(),
            dry_run,
            plan: change.plan.lines().map(str::to_owned).collect(),
            members: change.members.iter().map(MemberRow::new).collect(),
        }
    }

    fn text(&self) -> String {
        let title = if self.dry_run {
            "Nothing was done. The plan:"
        } else {
            "Done:"
        };
        let mut lines = vec![title.to_owned()];
        lines.extend(self.plan.iter().map(|step| format!("  {step}")));
        lines.join("\n")
    }
}

#[derive(Debug, Serialize)]
struct MemberRow {
    id: String,
    name: String,
    voter: bool,
    leader: bool,
    client: String,
    peer: String,
    http: String,
    matched: Option<String>,
}

impl MemberRow {
    fn new(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            name: member.name.clone(),
            voter: member.voter,
            leader: member.leader,
            client: member.client_addr.clone(),
            peer: member.peer_addr.clone(),
            http: member.http_addr.clone(),
            matched: (member.matched != 0).then(|| member.matched.to_string()),
        }
    }
}

impl Row for MemberRow {
    const HEADER: &'static [&'static str] = &[
        "ID",
        "NAME",
        "VOTE",
        "LEADER",
        "CLIENTS",
        "PEERS",
        "HTTP",
        "LOG UP TO",
    ];

    fn cells(&self) -> Vec<String> {
        let word = |yes, word: &str| if yes { word.to_owned() } else { String::new() };
        vec![
            self.id.clone(),
            self.name.clone(),
            if self.voter { "voter" } else { "learner" }.to_owned(),
            word(self.leader, "leader"),
            self.client.clone(),
            self.peer.clone(),
            self.http.clone(),
            self.matched.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Captured, Format};

    fn change() -> MemberChange {
        let member = Member {
            id: 4,
            name: "n4".to_owned(),
            peer_addr: "h4:7401".to_owned(),
            client_addr: "h4:7400".to_owned(),
            http_addr: "h4:7402".to_owned(),
            voter: false,
            leader: false,
            matched: 17,
        };
        MemberChange {
            id: 4,
            plan: "add n4 as a learner\nquorum stays 2 of 3".to_owned(),
            members: vec![member],
        }
    }

    #[test]
    fn a_dry_run_says_that_nothing_was_done() {
        let captured = Captured::default();
        let print = |format, dry_run| {
            changed(&change(), dry_run, &mut captured.printer(format)).expect("memory");
            captured.take()
        };
        assert_eq!(
            print(Format::Table, true),
            "Nothing was done. The plan:\n  add n4 as a learner\n  quorum stays 2 of 3\n"
        );
        assert_eq!(
            print(Format::Table, false),
            "Done:\n  add n4 as a learner\n  quorum stays 2 of 3\n"
        );
        assert_eq!(print(Format::Name, false), "4\n");
        assert_eq!(
            print(Format::Json, true),
            "{\"id\":\"4\",\"dry_run\":true,\"plan\":[\"add n4 as a learner\",\
             \"quorum stays 2 of 3\"],\"members\":[{\"id\":\"4\",\"name\":\"n4\",\"voter\":false,\
             \"leader\":false,\"client\":\"h4:7400\",\"peer\":\"h4:7401\",\"http\":\"h4:7402\",\
             \"matched\":\"17\"}]}\n"
        );
    }

    #[test]
    fn a_member_is_a_voter_or_a_learner() {
        let captured = Captured::default();
        let row = MemberRow::new(&change().members[0]);
        captured
            .printer(Format::Table)
            .list(&[row])
            .expect("memory");
        assert_eq!(
            captured.take(),
            "ID  NAME  VOTE     LEADER  CLIENTS  PEERS    HTTP     LOG UP TO\n\
             4   n4    learner          h4:7400  h4:7401  h4:7402  17\n"
        );
    }
}
