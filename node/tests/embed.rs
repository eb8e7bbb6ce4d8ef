//! Nodes in this process, on real directories and real sockets.

use std::path::Path;
use std::time::Duration;

use quorate_client::{ClaimOutcome, Client};
use quorate_node::{Health, Node};
use quorate_rpc::v1;
use quorate_statemachine::cluster::Found;
use quorate_statemachine::lease::{Claim, Claimed, SameOwner};
use quorate_statemachine::{LeaseToken, Name, Owner};
use tokio::time::Instant;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Nothing in these tests takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a valid name")
}

fn claim(key: &str, token: &str) -> Claim {
    Claim {
        key: name(key),
        owner: Owner::new(name("tester"), name("boot-1")),
        lease_token: LeaseToken::parse(token).expect("a valid token"),
        ttl_ms: 60_000,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    }
}

async fn granted(client: &Client, key: &str) -> Result<u64> {
    match client
        .execute(claim(key, &format!("token-of-{key}")))
        .await?
    {
        Claimed::Granted(lease) => Ok(lease.fencing_token),
        Claimed::Busy(holder) => Err(format!("{key} is held by {holder:?}").into()),
    }
}

async fn alone(dir: &Path) -> Result<Node> {
    Ok(Node::builder().data_dir(dir).start().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grants_and_remembers_over_a_restart() -> Result {
    let dir = tempfile::tempdir()?;
    let node = alone(dir.path()).await?;
    let client = node.client();
    let first = granted(&client, "a").await?;
    let second = granted(&client, "b").await?;
    assert!(second > first);
    node.shutdown().await;

    let node = alone(dir.path()).await?;
    let client = node.client();
    let lease = client
        .lease_get(&name("a"))
        .await?
        .ok_or("the lease is gone")?;
    assert_eq!(lease.fencing_token, first);
    assert!(granted(&client, "c").await? > second);
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_directory_is_refused() -> Result {
    let dir = tempfile::tempdir()?;
    let node = alone(dir.path()).await?;
    let error = alone(dir.path())
        .await
        .err()
        .ok_or("two nodes on one directory")?;
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(*node.health().borrow(), Health::Running);
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_cluster_founds_it() -> Result {
    let dir = tempfile::tempdir()?;
    let node = alone(dir.path()).await?;
    // As it is: the id of the cluster is told to whoever asks.
    let found = Found {
        cluster_id: name(&node.status().cluster_id),
        node_id: u64::MAX,
    };
    let refused = node.client().execute_command(found.into()).await;
    let refused = refused.expect_err("all ids would be used up").to_string();
    assert!(
        refused.contains("the first member names the cluster"),
        "{refused}"
    );
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_expires_when_nobody_writes() -> Result {
    let dir = tempfile::tempdir()?;
    let node = alone(dir.path()).await?;
    let client = node.client();
    let short = Claim {
        ttl_ms: 50,
        ..claim("short", "t")
    };
    client.execute(short).await?;
    let deadline = Instant::now() + PATIENCE;
    while node.status().leases != 0 {
        assert!(
            Instant::now() < deadline,
            "the ticker has not ended the lease"
        );
        tokio::task::yield_now().await;
    }
    let story = client.lease_history(&name("short")).await?;
    assert_eq!(story.history.ended.len(), 1);
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_passes_while_nobody_writes_outlives_the_leader() -> Result {
    let dir = tempfile::tempdir()?;
    let node = alone(dir.path()).await?;
    granted(&node.client(), "held").await?;
    let before = node.status();
    let deadline = Instant::now() + PATIENCE;
    while node.status().now_ms < before.now_ms + 1_000 {
        assert!(Instant::now() < deadline, "time is not in the log");
        tokio::task::yield_now().await;
    }
    node.shutdown().await;

    // A new term goes on from the last entry.
    let node = alone(dir.path()).await?;
    let lease = node.client().lease_get(&name("held")).await?;
    assert!(lease.is_some(), "a minute is not over");
    let passed = node.status().now_ms - before.now_ms;
    assert!(passed >= 1_000, "{passed} ms, a second was in the log");
    node.shutdown().await;
    Ok(())
}

fn blank(dir: &Path, name: &str) -> quorate_node::Builder {
    Node::builder()
        .data_dir(dir)
        .name(name)
        .listen_peer("127.0.0.1:0")
        .listen_client("127.0.0.1:0")
        .join()
}

async fn add(founder: &Node, node: &Node) -> Result<v1::MemberChange> {
    let member = node.member();
    let request = v1::AddMemberRequest {
        name: member.name.clone(),
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        promote: true,
        ..v1::AddMemberRequest::default()
    };
    Ok(founder.add_member(request).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_grows_to_three_while_a_client_writes() -> Result {
    let dirs: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let founder = Node::builder()
        .data_dir(dirs[0].path())
        .name("n1")
        .start()
        .await?;
    let before = granted(&founder.client(), "before").await?;
    founder.shutdown().await;

    // The same directory, now with sockets: no migration.
    let founder = Node::builder()
        .data_dir(dirs[0].path())
        .name("n1")
        .listen_peer("127.0.0.1:0")
        .listen_client("127.0.0.1:0")
        .start()
        .await?;
    let client = founder.client();
    let writer = tokio::spawn({
        let client = client.clone();
        async move {
            let mut tokens = Vec::new();
            for number in 0..300 {
                let token = granted(&client, &format!("while-growing-{number}")).await;
                tokens.push(token.map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(tokens)
        }
    });
    let second = blank(dirs[1].path(), "n2").start().await?;
    let third = blank(dirs[2].path(), "n3").start().await?;
    add(&founder, &second).await?;
    let change = add(&founder, &third).await?;
    assert_eq!(
        change.members.iter().filter(|member| member.voter).count(),
        3
    );

    let tokens = writer.await??;
    assert!(tokens.is_sorted(), "tokens grow in the order of the grants");
    assert!(tokens.iter().all(|token| *token > before));
    // Every node answers a linearizable read, and a write that it must pass on.
    for node in [&founder, &second, &third] {
        let client = node.client();
        let lease = client.lease_get(&name("while-growing-299")).await?;
        assert_eq!(
            lease.map(|lease| lease.fencing_token),
            tokens.last().copied()
        );
        granted(&client, &format!("through-{}", node.status().id)).await?;
    }
    let remote = Client::connect([second.member().client_addr.clone()])?;
    let outcome = remote
        .lease("remote")
        .owner("r")
        .ttl(Duration::from_secs(5))
        .try_claim()
        .await?;
    let ClaimOutcome::Granted(guard) = outcome else {
        return Err("nobody else wants this key".into());
    };
    assert!(guard.token() > before);
    guard.release().await?;
    for node in [third, second, founder] {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_leader_leads_no_longer_though_a_client_is_connected() -> Result {
    let dirs: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let founder = Node::builder()
        .data_dir(dirs[0].path())
        .name("n1")
        .listen_peer("127.0.0.1:0")
        .listen_client("127.0.0.1:0")
        .start()
        .await?;
    let second = blank(dirs[1].path(), "n2").start().await?;
    let third = blank(dirs[2].path(), "n3").start().await?;
    add(&founder, &second).await?;
    add(&founder, &third).await?;
    let endpoints = [&founder, &second, &third].map(|node| node.member().client_addr);
    let client = Client::connect(endpoints)?.with_timeout(PATIENCE);
    let before = granted(&client, "before").await?;
    assert_eq!(founder.status().role, "leader");
    drop(founder);
    let after = granted(&client, "after").await?;
    assert!(after > before);
    let leads = |node: &Node| node.status().role == "leader";
    assert!(
        leads(&second) || leads(&third),
        "the dropped one granted it"
    );
    for node in [third, second] {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_stops_lets_go_of_its_directory_though_a_client_is_connected() -> Result {
    let dir = tempfile::tempdir()?;
    let node = Node::builder()
        .data_dir(dir.path())
        .listen_client("127.0.0.1:0")
        .start()
        .await?;
    let client = Client::connect([node.member().client_addr])?.with_timeout(PATIENCE);
    let before = granted(&client, "before").await?;
    let read = client.lease_get(&name("before")).await?;
    assert_eq!(read.map(|lease| lease.fencing_token), Some(before));
    node.shutdown().await;

    // The client has its streams still: one for commands, one for reads.
    let node = alone(dir.path()).await?;
    assert!(granted(&node.client(), "after").await? > before);
    node.shutdown().await;
    drop(client);
    Ok(())
}
