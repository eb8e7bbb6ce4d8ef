//! Making one cluster of started nodes, and telling scripts where it is.

use std::path::Path;
use std::time::Duration;

use quorate_client::admin::{AddMemberRequest, Admin, Member};
use quorate_client::{ClientError, Credential};
use serde::Serialize;

use super::node::Running;
use crate::exit::Failure;
use crate::output::Row;

/// How often a cluster that is forming is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long taking a member in may take before the members are looked at again.
const ADD_MAX: Duration = Duration::from_secs(30);

/// What `cluster.json` says of a node.
#[derive(Debug, Serialize)]
pub struct Shown {
    id: String,
    pid: u32,
    client: String,
    peer: String,
    http: String,
    data_dir: String,
    name: String,
    /// Starts the node again, with `log` for its stderr.
    command: Vec<String>,
    log: String,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &["ID", "PID", "CLIENT"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.pid.to_string(), self.client.clone()]
    }

    fn name(&self) -> String {
        self.client.clone()
    }
}

#[derive(Serialize)]
struct ClusterFile<'a> {
    nodes: &'a [Shown],
}

/// Writes `cluster.json`, whole or not at all.
pub fn write(dir: &Path, nodes: &[Shown]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&ClusterFile { nodes })
        .map_err(|error| Failure::error("io", error.to_string()))?;
    let unfinished = dir.join("cluster.json.new");
    std::fs::write(&unfinished, text + "\n")?;
    Ok(std::fs::rename(unfinished, dir.join("cluster.json"))?)
}

/// Removes `cluster.json`: the processes that it names are not these, or no more.
pub fn forget(dir: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(dir.join("cluster.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Takes in who is not a member yet, until all are voters. Looks at the members after each step, so
/// that it goes on where an earlier run was stopped.
pub async fn form(nodes: &[Running], token: Option<&Credential>) -> Result<Vec<Shown>, Failure> {
    loop {
        match step(nodes, token).await {
            Ok(Some(shown)) => return Ok(shown),
            Ok(None) => {}
            Err(error) if error.is_passing() => tokio::time::sleep(LOOK_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Brings the cluster one step nearer to all nodes being voters; then shows them.
async fn step(
    nodes: &[Running],
    token: Option<&Credential>,
) -> Result<Option<Vec<Shown>>, ClientError> {
    let mut known = None;
    let mut blank = Vec::new();
    for node in nodes {
        let mut admin = Admin::connect([node.layout.client.clone()])?;
        if let Some(token) = token {
            admin = admin.with_token(token.clone());
        }
        let status = admin.status().await?;
        if status.role == "blank" {
            blank.push(&node.layout.client);
        } else if known.is_none() {
            known = Some(admin.with_timeout(ADD_MAX));
        }
    }
    let Some(admin) = known else {
        return Ok(None);
    };
    let members = admin.members(false).await?.members;
    let mut shown = Vec::new();
    for node in nodes {
        let client = &node.layout.client;
        let member = members.iter().find(|member| member.client_addr == *client);
        match member {
            // A node that has lost its data is a new one, whoever was at its address.
            Some(member) if member.voter && !blank.contains(&client) => {
                shown.push(show(node, member));
            }
            known => {
                let voter = known.filter(|member| member.voter);
                let replaces = voter.map_or(0, |member| member.id);
                admin.add_member(request(node, replaces)).await?;
                return Ok(None);
            }
        }
    }
    Ok(Some(shown))
}

fn request(node: &Running, replaces: u64) -> AddMemberRequest {
    AddMemberRequest {
        name: node.layout.name.clone(),
        peer_addr: node.layout.peer.clone(),
        client_addr: node.layout.client.clone(),
        http_addr: node.layout.http.clone(),
        promote: true,
        replaces,
        ..AddMemberRequest::default()
    }
}

fn show(node: &Running, member: &Member) -> Shown {
    let layout = &node.layout;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    Shown {
        id: member.id.to_string(),
        pid: node.pid,
        client: layout.client.clone(),
        peer: layout.peer.clone(),
        http: layout.http.clone(),
        data_dir: path(&layout.data_dir),
        name: layout.name.clone(),
        command: vec![
            path(&node.command),
            "serve".to_owned(),
            "--config".to_owned(),
            path(&layout.config),
        ],
        log: path(&layout.log),
    }
}
