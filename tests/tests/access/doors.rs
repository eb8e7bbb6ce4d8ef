//! The streams of clients and the calls of operators, at each of three nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use quorate_client::admin::{AddMemberRequest, AuditRequest, UpdateMemberRequest};
use quorate_client::{Bearer, ClientError, WatchEvent, WatchWhat};
use quorate_statemachine::Refusal;
use quorate_statemachine::access::{Enable, Noun, RevokeToken, Verb};
use quorate_statemachine::notice::Notice;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::wait::{PATIENCE, until};

use super::{
    NODE, Users, admin_of, claim, client_of, denied, list, name, not_let_in, put_role, rule,
    watch_of,
};

/// What one node says to a caller without a token, or with one that is proof of nothing.
async fn strangers_are_not_let_in(cluster: &Cluster, node: usize) -> Result<()> {
    let unknown = Bearer::mint()?;
    for token in [None, Some(&unknown)] {
        let client = client_of(cluster, node, token)?;
        not_let_in("a command", client.execute(claim("build/x")).await)?;
        not_let_in("a read", client.lease_list(list("build/")).await)?;
        not_let_in("a watch", watch_of(&client, "build/").await)?;
        let admin = admin_of(cluster, node, token)?;
        not_let_in("a look at the node", admin.status().await)?;
        not_let_in("a look at the members", admin.members(true).await)?;
        not_let_in("a change", admin.promote_member(3, true).await)?;
        not_let_in("a snapshot", admin.save_snapshot(true).await)?;
        not_let_in("the audit", admin.audit(AuditRequest::default()).await)?;
    }
    Ok(())
}

async fn a_builder_may_build(cluster: &Cluster, node: usize, ci: &Bearer) -> Result<()> {
    let client = client_of(cluster, node, Some(ci))?;
    client.execute(claim(&format!("build/{node}"))).await?;
    denied("another key", client.execute(claim("other")).await)?;
    let seen = client.lease_list(list("build/")).await?;
    ensure!(seen.rows.len() > node, "{seen:?}");
    denied("all leases", client.lease_list(list("")).await)?;
    watch_of(&client, "build/").await?;
    denied("a watch of all", watch_of(&client, "").await)?;
    denied("rights", client.access_status().await)?;
    let admin = admin_of(cluster, node, Some(ci))?;
    denied("the status", admin.status().await)?;
    denied(
        "a change of membership",
        admin.promote_member(3, false).await,
    )?;
    denied("its dry run", admin.promote_member(3, true).await)?;
    let moved = UpdateMemberRequest {
        id: 3,
        client_addr: "127.0.0.1:1".to_owned(),
        ..UpdateMemberRequest::default()
    };
    denied("another address", admin.update_member(moved).await)?;
    denied("another leader", admin.transfer_leader(None, false).await)?;
    denied("a removal", admin.remove_member(3, false).await)?;
    denied("all rows", admin.save_snapshot(false).await)?;
    denied("rows as they are here", admin.save_snapshot(true).await)?;
    denied("the audit", admin.audit(AuditRequest::default()).await)?;
    let address = admin.endpoints()[0].clone();
    denied("a digest", admin.digest_at(&address, 1, PATIENCE).await)?;
    denied("a founding", admin.found_cluster(&address).await)
}

async fn an_administrator_may_do_all(cluster: &Cluster, node: usize, ann: &Bearer) -> Result<()> {
    let client = client_of(cluster, node, Some(ann))?;
    client.execute(claim(&format!("other/{node}"))).await?;
    client.lease_list(list("")).await?;
    watch_of(&client, "").await?;
    ensure!(client.access_status().await?.enabled, "it is on");
    let admin = admin_of(cluster, node, Some(ann))?;
    admin.status().await?;
    let members = admin.members(false).await?;
    ensure!(members.members.len() == 3, "{members:?}");
    admin.promote_member(3, true).await?;
    // Not as a dry run: it is noted in the log first. The member is there, so nothing changes.
    let known = members.members[0].clone();
    let again = AddMemberRequest {
        name: known.name,
        peer_addr: known.peer_addr,
        client_addr: known.client_addr,
        ..AddMemberRequest::default()
    };
    admin.add_member(again).await?;
    let first = admin.save_snapshot(false).await?.next().await?;
    ensure!(
        first.is_some_and(|part| !part.data.is_empty()),
        "a snapshot"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_holds_callers_to_their_rights() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let anybody = cluster.client()?.with_timeout(PATIENCE);
        let users = Users::make(&anybody).await?;
        let early = anybody.execute(Enable {}).await;
        ensure!(
            matches!(early, Err(ClientError::Refused(Refusal::Conflict { .. }))),
            "who is no administrator locks nobody out: {early:?}"
        );
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        ann.execute(Enable {}).await?;
        for node in 0..3 {
            // A linearizable read: the node has applied what was switched on.
            let ann = client_of(cluster, node, Some(&users.ann))?;
            ensure!(ann.access_status().await?.enabled, "it is on");
            strangers_are_not_let_in(cluster, node)
                .await
                .with_context(|| format!("at node {node}"))?;
            a_builder_may_build(cluster, node, &users.ci)
                .await
                .with_context(|| format!("at node {node}"))?;
            an_administrator_may_do_all(cluster, node, &users.ann)
                .await
                .with_context(|| format!("at node {node}"))?;
        }
        // A stream that was open before is held to it as well.
        not_let_in("an open stream", anybody.execute(claim("build/x")).await)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_is_gone_on_open_streams() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        for node in 0..3 {
            let ci = client_of(cluster, node, Some(&users.ci))?;
            ci.execute(claim("build/x")).await?;
            put_role(&ann, "builder", Vec::new()).await?;
            denied("a right that was taken", ci.execute(claim("build/x")).await)?;
            denied("a read of it", ci.lease_list(list("build/")).await)?;
            let rules = vec![rule(Verb::Write, Noun::Lease, "build/")];
            put_role(&ann, "builder", rules).await?;
            ci.execute(claim("build/x")).await?;

            // A new token is proof at once, at any node.
            let (token, _) = ann.create_token(name("ci"), None).await?;
            let other = client_of(cluster, node, Some(&token))?;
            other.lease_list(list("build/")).await?;
            let id = token.id().clone();
            ann.execute(RevokeToken { id }).await?;
            // The node finds out as soon as it has applied it.
            until("the token to be refused", PATIENCE, async || {
                Ok(not_let_in("it", other.lease_list(list("build/")).await).ok())
            })
            .await?;
            ci.execute(claim("build/x")).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_while_nobody_writes() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        let ttl = Some(Duration::from_secs(3));
        let (token, put) = ann.create_token(name("ci"), ttl).await?;
        ensure!(put.expires_at.is_some(), "{put:?}");
        let mut clients = Vec::new();
        for node in 0..3 {
            let client = client_of(cluster, node, Some(&token))?;
            client
                .lease_list(list("build/"))
                .await
                .context("it is proof at first")?;
            clients.push(client);
        }
        for client in &clients {
            // Only reads: no entry moves the cluster's time but the leader's own.
            until("the token to end", PATIENCE, async || {
                let read = client.lease_list(list("build/")).await;
                Ok(not_let_in("an ended token", read).ok())
            })
            .await?;
        }
        let tokens = ann.access_tokens(name("ci")).await?.context("the user")?;
        ensure!(tokens.len() == 1, "the sweep has removed it: {tokens:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_only_what_may_be_read() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let all = WatchWhat::LeasePrefix(String::new());
        let anybody = cluster.client()?;
        let mut before = anybody.watch(all, 0).await?;
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        let ci = client_of(cluster, 0, Some(&users.ci))?;
        let mut builds = ci
            .watch(WatchWhat::LeasePrefix("build/".to_owned()), 0)
            .await?;
        ann.execute(claim("other")).await?;
        ann.execute(claim("build/x")).await?;
        // Whoever watched before it was switched on is not told of it.
        let mut seen = Vec::new();
        while let Some(event) = before.next().await {
            seen.push(event);
        }
        ensure!(
            matches!(seen[..], [WatchEvent::Registered { .. }]),
            "{seen:?}"
        );
        let mut told = Vec::new();
        while let Some(event) = builds.next().await {
            if let WatchEvent::Notices { notices, .. } = event {
                told = notices;
                break;
            }
        }
        ensure!(
            matches!(&told[..], [Notice::LeaseGranted { key, .. }] if key.as_str() == "build/x"),
            "{told:?}"
        );
        // A prefix of which not all may be read any more is not watched any more.
        let less = vec![rule(Verb::Read, Noun::Lease, "build/z")];
        put_role(&ann, "builder", less).await?;
        ann.execute(claim("build/y")).await?;
        ensure!(builds.next().await.is_none(), "it was told of build/y");
        denied("to watch anew", watch_of(&ci, "build/").await)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_which_nothing_happens_ends_with_its_token() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        for node in 0..3 {
            let (token, _) = ann.create_token(name("ci"), None).await?;
            let ci = client_of(cluster, node, Some(&token))?;
            let what = WatchWhat::LeasePrefix("build/".to_owned());
            let mut watch = ci.watch(what, 0).await?;
            let first = watch.next().await;
            ensure!(
                matches!(first, Some(WatchEvent::Registered { .. })),
                "{first:?}"
            );
            let id = token.id().clone();
            ann.execute(RevokeToken { id }).await?;
            let ended = tokio::time::timeout(PATIENCE, watch.next()).await;
            ensure!(ended == Ok(None), "it goes on: {ended:?}");
        }
        Ok(())
    })
    .await
}

/// The way back in for administrators who have lost theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_switches_it_off_when_it_starts() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        Users::in_control(cluster).await?;
        let anybody = cluster.client()?.with_timeout(PATIENCE);
        not_let_in("nobody", anybody.execute(claim("k")).await)?;
        for tell in [true, false] {
            cluster.nodes[1].terminate().await?;
            cluster.nodes[1].configure(|config| config.security.switch_access_off = tell)?;
            cluster.nodes[1].start()?;
            until("everybody to be let in", PATIENCE, async || {
                Ok(anybody.execute(claim("k")).await.ok())
            })
            .await?;
        }
        ensure!(!anybody.access_status().await?.enabled, "it is off");
        Ok(())
    })
    .await
}
