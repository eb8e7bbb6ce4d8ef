//! `quorate member …`

use std::time::Duration;

use quorate_client::admin::{AddMemberRequest, Admin, Member, MemberChange, UpdateMemberRequest};
use serde::Serialize;
use tokio::time::Instant;

use super::confirm::confirm;
use super::status::known_members;
use crate::args::member::{NewNode, Replace, Update, Verb};
use crate::exit::{Exit, Failure};
use crate::output::{Printer, Row};

/// Between looks how far a learner is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Does one verb.
pub async fn run(admin: &Admin, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List => {
            let members = known_members(admin).await?.members;
            let rows: Vec<_> = members.iter().map(MemberRow::new).collect();
            Ok(printer.list(&rows)?)
        }
        Verb::Add(args) => {
            let request = AddMemberRequest {
                promote: !args.learner,
                ..request(&args.node)
            };
            bring_in(admin, request, args.node.no_wait, printer).await
        }
        Verb::Replace(args) => replace(admin, args, printer).await,
        Verb::Update(args) => update(admin, args, printer).await,
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

fn request(node: &NewNode) -> AddMemberRequest {
    AddMemberRequest {
        name: node.name.clone(),
        peer_addr: node.peer.clone(),
        client_addr: node.client.clone(),
        http_addr: node.http.clone(),
        dry_run: node.dry_run,
        answer_at_once: true,
        ..AddMemberRequest::default()
    }
}

async fn replace(admin: &Admin, args: Replace, printer: &mut Printer) -> Result<(), Failure> {
    if !args.node.dry_run {
        let what = format!("takes member {} out of the cluster for good", args.old);
        confirm(args.yes, &what)?;
    }
    let request = AddMemberRequest {
        replaces: args.old,
        ..request(&args.node)
    };
    bring_in(admin, request, args.node.no_wait, printer).await
}

async fn update(admin: &Admin, args: Update, printer: &mut Printer) -> Result<(), Failure> {
    let request = UpdateMemberRequest {
        id: args.id,
        peer_addr: args.peer.unwrap_or_default(),
        client_addr: args.client.unwrap_or_default(),
        http_addr: args.http.unwrap_or_default(),
        dry_run: args.dry_run,
    };
    let change = admin.update_member(request).await?;
    changed(&change, args.dry_run, printer)
}

/// Takes a node in and shows how it gets on until it is what it was to become.
async fn bring_in(
    admin: &Admin,
    request: AddMemberRequest,
    no_wait: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    not_wiped(admin, &request).await?;
    let (dry_run, replaces) = (request.dry_run, request.replaces);
    let votes = request.promote || replaces != 0;
    let mut change = admin.add_member(request).await?;
    if votes && !dry_run && !no_wait {
        change.members = until_voter(admin, change.id, replaces).await?;
    }
    changed(&change, dry_run, printer)
}

/// A node without its disk is none of those that the cluster knows, whatever its name is.
async fn not_wiped(admin: &Admin, request: &AddMemberRequest) -> Result<(), Failure> {
    let members = known_members(admin).await?.members;
    let same = |member: &&Member| {
        member.name == request.name
            && member.peer_addr == request.peer_addr
            && member.id != request.replaces
    };
    let Some(known) = members.iter().find(same) else {
        return Ok(());
    };
    match admin.status_of(&request.client_addr).await {
        Ok(status) if status.role == "blank" => Err(Failure::new(
            Exit::Lost,
            "unsafe",
            format!(
                "{} is member {}, and the node there has lost its data: it must not vote again as \
                 member {}; give it a new id with `quorate member replace {} {} --peer {} --client \
                 {}`",
                known.name,
                known.id,
                known.id,
                known.id,
                known.name,
                request.peer_addr,
                request.client_addr
            ),
        )),
        _ => Ok(()),
    }
}

/// Tells on standard error how far the learner is. The cluster goes on without this program.
async fn until_voter(admin: &Admin, id: u64, replaces: u64) -> Result<Vec<Member>, Failure> {
    let deadline = Instant::now() + admin.timeout();
    let mut said = String::new();
    loop {
        // While a leader is being elected nobody can say.
        let members = known_members(admin).await.map(|known| known.members);
        let members = members.unwrap_or_default();
        let own = members.iter().find(|member| member.id == id);
        let old_is_there = members.iter().any(|member| member.id == replaces);
        if own.is_some_and(|own| own.voter) && !old_is_there {
            return Ok(members);
        }
        let words = progress(id, own);
        if words != said {
            eprintln!("{words}");
            said = words;
        }
        if Instant::now() + LOOK_EVERY > deadline {
            return Err(Failure::new(
                Exit::Unknown,
                "deadline_exceeded",
                format!(
                    "{said}, after {:?} (--timeout); the cluster makes it a voter by itself once \
                     it has caught up: see `quorate member list`",
                    admin.timeout()
                ),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn progress(id: u64, member: Option<&Member>) -> String {
    match member {
        Some(member) if member.voter => format!("member {id} is a voter"),
        Some(Member { lag: Some(lag), .. }) => {
            format!("member {id} is a learner, {lag} entries behind")
        }
        _ => format!("member {id} is a learner; how far behind is not known yet"),
    }
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
    lag: Option<String>,
    goal: Option<String>,
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
            lag: member.lag.map(|lag| lag.to_string()),
            goal: (!member.goal.is_empty()).then(|| member.goal.clone()),
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
        "LAG",
        "BECOMES",
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
            self.lag.clone().unwrap_or_else(|| "-".to_owned()),
            match self.goal.as_deref() {
                None => String::new(),
                Some("vote") => "voter".to_owned(),
                Some(goal) => goal.to_owned(),
            },
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
            lag: Some(3),
            goal: "replace 2".to_owned(),
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
             \"matched\":\"17\",\"lag\":\"3\",\"goal\":\"replace 2\"}]}\n"
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
            "ID  NAME  VOTE     LEADER  CLIENTS  PEERS    HTTP     LOG UP TO  LAG  BECOMES\n\
             4   n4    learner          h4:7400  h4:7401  h4:7402  17         3    replace 2\n"
        );
    }
}
