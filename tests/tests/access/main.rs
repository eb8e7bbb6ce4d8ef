//! Access control on real nodes: who is let in by which door, what each may do and see, and who did
//! what by the log.

mod audit;
mod certificates;
mod command_line;
mod console;
mod doors;
mod limits;
mod typed;

use anyhow::{Result, bail, ensure};
use quorate_client::admin::Admin;
use quorate_client::{
    Bearer, Client, ClientError, Credential, NodeError, ReadFrom, Remote, RemoteOptions, WatchWhat,
};
use quorate_statemachine::access::{Enable, Noun, PutRole, PutUser, Role, Rule, User, Verb};
use quorate_statemachine::lease::{Claim, List, SameOwner};
use quorate_statemachine::{LeaseToken, Name, Owner, Refusal};
use quorate_tests::cluster::Cluster;
use quorate_tests::wait::PATIENCE;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const TTL_MS: u64 = 60_000;

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

fn rule(verb: Verb, noun: Noun, prefix: &str) -> Rule {
    Rule {
        noun: Some(noun),
        prefix: prefix.to_owned(),
        verb,
    }
}

fn claim(key: &str) -> Claim {
    Claim {
        key: name(key),
        owner: Owner::new(name("w"), name("w")),
        lease_token: LeaseToken::parse("t").expect("a token"),
        ttl_ms: TTL_MS,
        same_owner: SameOwner::Extend,
        metadata: Vec::new(),
    }
}

fn list(prefix: &str) -> List {
    List {
        prefix: prefix.to_owned(),
        after: None,
        limit: 0,
    }
}

/// A client that reads from one node only; its commands go to the leader.
fn client_of(cluster: &Cluster, node: usize, token: Option<&Bearer>) -> Result<Client> {
    let options = RemoteOptions {
        read_from: ReadFrom::AnyNode,
        credential: token.cloned().map(Credential::from),
        ..RemoteOptions::default()
    };
    let remote = Remote::new([cluster.nodes[node].client_addr()], options)?;
    Ok(Client::new(remote).with_timeout(PATIENCE))
}

fn admin_of(cluster: &Cluster, node: usize, token: Option<&Bearer>) -> Result<Admin> {
    let admin = Admin::connect([cluster.nodes[node].client_addr()])?.with_timeout(PATIENCE);
    Ok(match token {
        Some(token) => admin.with_token(token.clone()),
        None => admin,
    })
}

async fn put_role(client: &Client, role: &str, rules: Vec<Rule>) -> Result<()> {
    let role = Role {
        name: name(role),
        rules,
    };
    client.execute(PutRole { role }).await?;
    Ok(())
}

async fn put_user(client: &Client, user: &str, role: &str) -> Result<()> {
    let user = User {
        name: name(user),
        roles: vec![name(role)],
        certificate: false,
    };
    client.execute(PutUser { user }).await?;
    Ok(())
}

/// Two users with tokens: `ann`, who may do everything, and `ci`, who builds.
struct Users {
    ann: Bearer,
    ci: Bearer,
}

impl Users {
    async fn make(client: &Client) -> Result<Self> {
        put_role(client, "root", vec![Rule::everything()]).await?;
        let builds = vec![
            rule(Verb::Write, Noun::Lease, "build/"),
            rule(Verb::Read, Noun::Queue, "jobs"),
        ];
        put_role(client, "builder", builds).await?;
        put_user(client, "ann", "root").await?;
        put_user(client, "ci", "builder").await?;
        Ok(Self {
            ann: client.create_token(name("ann"), None).await?.0,
            ci: client.create_token(name("ci"), None).await?.0,
        })
    }

    /// The same, and access is controlled.
    async fn in_control(cluster: &Cluster) -> Result<Self> {
        let users = Self::make(&cluster.client()?.with_timeout(PATIENCE)).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        ensure!(ann.execute(Enable {}).await?, "it was off");
        Ok(users)
    }
}

fn denied<T: std::fmt::Debug>(what: &str, result: Result<T, ClientError>) -> Result<()> {
    match result {
        Err(ClientError::Refused(Refusal::Denied { .. })) => Ok(()),
        other => bail!("{what} was not denied: {other:?}"),
    }
}

fn not_let_in<T: std::fmt::Debug>(what: &str, result: Result<T, ClientError>) -> Result<()> {
    match result {
        Err(ClientError::Node(NodeError::Unauthenticated { .. })) => Ok(()),
        other => bail!("{what} was let in: {other:?}"),
    }
}

async fn watch_of(client: &Client, prefix: &str) -> Result<(), ClientError> {
    let what = WatchWhat::LeasePrefix(prefix.to_owned());
    client.watch(what, 0).await.map(drop)
}
