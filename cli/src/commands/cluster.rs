//! `quorate cluster form`: one cluster of the nodes that are there.
//!
//! The founder is the node whose name sorts first, whoever runs the command and in whatever order
//! the endpoints are given: two runs at the same time choose the same one.

mod plan;

use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_client::ClientError;
use quorate_client::admin::{AddMemberRequest, Admin};
use serde::Serialize;

use crate::args::cluster::{Form, Verb};
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use plan::{Plan, Reached};

/// Between looks whether all nodes answer.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Does one verb.
pub async fn run(admin: &Admin, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    let Verb::Form(args) = verb;
    let plan = look(admin, args.wait).await?;
    let formed = match args.dry_run {
        true => Formed::planned(&plan),
        false => form(admin, plan, args).await?,
    };
    Ok(printer.value(&formed, &formed.text())?)
}

/// What is there, and what follows from it.
async fn look(admin: &Admin, wait: Duration) -> Result<Plan, Failure> {
    let nodes = all_answer(admin, wait).await?;
    let members = match nodes.iter().find(|node| !node.is_blank()) {
        Some(member) => admin.at(&member.endpoint).members(true).await?.members,
        None => Vec::new(),
    };
    Plan::of(nodes, &members)
}

async fn all_answer(admin: &Admin, wait: Duration) -> Result<Vec<Reached>, Failure> {
    let deadline = Instant::now() + wait;
    loop {
        let asked = admin
            .endpoints()
            .iter()
            .map(|endpoint| ask(admin, endpoint));
        let (mut nodes, mut silent) = (Vec::new(), Vec::new());
        for (endpoint, answer) in admin.endpoints().iter().zip(join_all(asked).await) {
            match answer {
                Ok(node) => nodes.push(node),
                Err(error) => silent.push(format!("{endpoint}: {error}")),
            }
        }
        if silent.is_empty() {
            return Ok(nodes);
        }
        if Instant::now() + LOOK_EVERY > deadline {
            return Err(Failure::new(
                Exit::Unreachable,
                "unavailable",
                format!(
                    "{} of {} nodes do not answer, and nothing was done: {}; start them, or give \
                     --wait",
                    silent.len(),
                    admin.endpoints().len(),
                    silent.join("; ")
                ),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(admin: &Admin, endpoint: &str) -> Result<Reached, ClientError> {
    let status = admin.status_of(endpoint).await?;
    Ok(Reached {
        endpoint: endpoint.to_owned(),
        status,
    })
}

async fn form(admin: &Admin, mut plan: Plan, args: Form) -> Result<Formed, Failure> {
    let mut founded = false;
    if let Some(founder) = &plan.founder {
        match admin.found_cluster(&founder.endpoint).await {
            Ok(_) => founded = true,
            // Another run was faster; what it has founded is there now.
            Err(_) if admin.status_of(&founder.endpoint).await?.role != "blank" => {}
            Err(error) => return Err(error.into()),
        }
        plan = look(admin, args.wait).await?;
    }
    let mut added = Vec::new();
    if let Some(member) = &plan.member {
        let cluster = admin.at(&member.endpoint);
        for node in &plan.blank {
            let status = node.status.clone();
            let request = AddMemberRequest {
                name: status.name.clone(),
                peer_addr: status.peer_addr,
                client_addr: status.client_addr,
                http_addr: status.http_addr,
                promote: true,
                ..AddMemberRequest::default()
            };
            eprintln!("adding {}", status.name);
            cluster.add_member(request).await?;
            added.push(status.name);
        }
    }
    Ok(Formed {
        dry_run: false,
        founded,
        cluster_id: plan.cluster_id,
        added,
        members: plan.members,
    })
}

/// What was done or would be done.
#[derive(Debug, Serialize)]
struct Formed {
    dry_run: bool,
    founded: bool,
    cluster_id: Option<String>,
    added: Vec<String>,
    /// Who was a member before the others were added.
    members: Vec<String>,
}

impl Formed {
    fn planned(plan: &Plan) -> Self {
        Self {
            dry_run: true,
            founded: plan.founder.is_some(),
            cluster_id: plan.cluster_id.clone(),
            added: plan
                .blank
                .iter()
                .map(|node| node.status.name.clone())
                .collect(),
            members: plan.members.clone(),
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        if self.dry_run {
            lines.push("Nothing was done. The plan:".to_owned());
        }
        match (&self.cluster_id, self.founded) {
            (Some(id), true) => lines.push(format!("cluster {id} was founded")),
            (Some(id), false) => lines.push(format!("cluster {id} is there")),
            (None, _) => lines.push("a new cluster is founded".to_owned()),
        }
        lines.push(format!("members before: {}", listed(&self.members)));
        lines.push(format!("added as voters: {}", listed(&self.added)));
        lines.join("\n")
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}
