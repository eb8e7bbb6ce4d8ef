//! Graphs: what a commit sends of them, and what is large.

use super::*;

#[tokio::test]
async fn a_whole_graph_that_only_grew_costs_what_grew() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "grew");
    let lease = lease(&store, &opaque("a")).await?;
    let large = "x".repeat(10_000);
    let mut nodes = chain(200, &large);
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    let before = node.client();
    let graph = graph_of(&before, &store).await?;
    nodes.push(node_of("last", Some("n199"), "small"));
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    let after = graph_of(&before, &store).await?;
    assert_eq!(
        (after.0, after.1),
        (graph.0, 201),
        "the graph is the same one, with a node more"
    );
    // Another handle has not read the graph: it gives all of it, which is then another one.
    let other = self::store(&node.client(), "grew");
    nodes.push(node_of("other", Some("last"), "small"));
    other
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    assert_ne!(graph_of(&before, &store).await?.0, graph.0);
    // The first one does not know of it, is told, and gives all of it too.
    nodes.push(node_of("again", Some("other"), "small"));
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    let ids: Vec<_> = nodes.iter().map(|node| node.node_id.clone()).collect();
    assert_eq!(nodes_of(&other).await?, ids);
    // One that has read it needs to give only what it adds.
    let graph = graph_of(&before, &store).await?;
    nodes.push(node_of("read", Some("again"), "small"));
    other.commit_runtime_state(whole(&lease, nodes)).await?;
    assert_eq!(graph_of(&before, &store).await?.0, graph.0);
    node.shutdown().await;
    Ok(())
}

/// Which graph the session has, and of how many nodes.
async fn graph_of(
    client: &Client,
    store: &QuorateSession,
) -> Result<(quorate_statemachine::session::GraphId, u64)> {
    let name = store.name().clone();
    let view = client
        .session_get(quorate_statemachine::session::Get { name })
        .await?;
    let head = view.and_then(|view| view.head);
    let (head, graph) = head.ok_or("it was committed to")?;
    Ok((head.graph, graph.nodes))
}

#[tokio::test]
async fn a_changed_or_hidden_node_is_not_taken_for_the_known_one() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "changed");
    let lease = lease(&store, &opaque("a")).await?;
    let mut nodes = chain(3, "first");
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    nodes[1] = node_of("n1", Some("n0"), "second");
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    let changed = store.load_node("n1").await?.ok_or("it is there")?;
    assert_eq!(
        serde_json::to_value(&changed)?,
        serde_json::to_value(&nodes[1])?
    );
    // Another handle hides a node, of which this one learns nothing; a whole graph brings it back.
    self::store(&node.client(), "changed")
        .tombstone_nodes(&["n2".to_owned(), "nobody".to_owned()])
        .await?;
    assert_eq!(nodes_of(&store).await?, ["n0", "n1"]);
    store
        .commit_runtime_state(whole(&lease, nodes.clone()))
        .await?;
    assert_eq!(nodes_of(&store).await?, ["n0", "n1", "n2"]);
    nodes.truncate(1);
    store.commit_runtime_state(whole(&lease, nodes)).await?;
    assert_eq!(nodes_of(&store).await?, ["n0"]);
    assert!(store.load_node("n1").await?.is_none());
    let vacuum = store.vacuum().await?;
    assert_eq!(vacuum.removed_node_count, 0);
    node.shutdown().await;
    Ok(())
}

/// Nodes that are appended come behind what is there, and that need not be what the handle knows.
#[tokio::test]
async fn what_another_handle_put_under_an_append_is_not_taken_for_the_known_graph() -> Result {
    let (_dir, node) = node().await?;
    let one = store(&node.client(), "under");
    let lease = lease(&one, &opaque("a")).await?;
    let own = chain(3, "own");
    let append = |id: &str| {
        let mut commit = whole(&lease, Vec::new());
        commit.graph = GraphCommitDelta::Append {
            nodes: vec![node_of(id, Some("n2"), "own")],
            leaf_node_id: None,
        };
        commit
    };
    one.commit_runtime_state(whole(&lease, own.clone())).await?;
    // Another graph of as many nodes, and a node of the same graph in another form.
    for (id, others) in [("n3", chain(3, "other")), ("n4", own.clone())] {
        let other = store(&node.client(), "under");
        if id == "n3" {
            other.commit_runtime_state(whole(&lease, others)).await?;
        } else {
            let mut commit = whole(&lease, Vec::new());
            commit.graph = GraphCommitDelta::Append {
                nodes: vec![node_of("n1", Some("n0"), "other")],
                leaf_node_id: None,
            };
            other.commit_runtime_state(commit).await?;
        }
        one.commit_runtime_state(append(id)).await?;
        let mut all = own.clone();
        all.push(node_of(id, Some("n2"), "own"));
        one.commit_runtime_state(whole(&lease, all)).await?;
        let read = one.load_node("n1").await?.ok_or("it is there")?;
        assert_eq!(
            serde_json::to_value(&read)?,
            serde_json::to_value(&own[1])?,
            "the whole graph that was given is the graph"
        );
        one.commit_runtime_state(whole(&lease, own.clone())).await?;
    }
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn what_is_large_goes_beside_the_commands_and_is_collected() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "large");
    let lease = lease(&store, &opaque("a")).await?;
    let image = vec![7; 1_500_000];
    let input = TurnInput::text("look").with_image_ref("image", image.clone());
    let draft = PendingTurnInputDraft::new("root", TurnInputIngress::NextTurn, input);
    store.enqueue_pending_turn_input(draft).await?;
    let claimed = store
        .claim_next_turn_inputs("root", &lease.fence(), &opaque("a"), TTL_MS, 5)
        .await?
        .ok_or("there is an input")?;
    assert_eq!(claimed.inputs[0].input.image_blobs["image"], image);
    // Snapshots of many blobs, and nodes of several megabytes.
    let mut commit = whole(&lease, chain(3, &"n".repeat(3_000_000)));
    commit.checkpoint.execution_state = Some(vec![1; 5_000_000]);
    let first = store.commit_runtime_state(commit).await?;
    let read = store.load_session(SessionReadScope::FullGraph).await?;
    let read = read.ok_or("it was committed to")?;
    let checkpoint = read.checkpoint.ok_or("a commit has one")?;
    assert_eq!(
        checkpoint.execution_state.map(|bytes| bytes.len()),
        Some(5_000_000)
    );
    assert_eq!(read.graph.nodes.len(), 3);
    assert_eq!(store.gc_unreachable().await?.deleted_blob_count, 0);
    // A reference is carried on without its value; a new value leaves the old one behind.
    let mut commit = whole(&lease, chain(3, "small"));
    commit.checkpoint.execution_state_ref = first.manifest.execution_state_ref;
    let carried = store.commit_runtime_state(commit).await?;
    let mut commit = whole(&lease, chain(3, "small"));
    commit.checkpoint.execution_state = Some(vec![2; 10]);
    commit = commit.completing_turn_input_claim(claimed.completion());
    store.commit_runtime_state(commit).await?;
    // A removed graph goes with the sweep; what it referred to then is not referred to any more.
    store.vacuum().await?;
    let report = store.gc_unreachable().await?;
    assert_eq!(
        (report.root_count, report.retained_blob_count),
        (1, 1),
        "{report:?}"
    );
    assert!(report.deleted_blob_count > 5, "{report:?}");
    let mut commit = whole(&lease, chain(3, "small"));
    commit.checkpoint.execution_state_ref = carried.manifest.execution_state_ref;
    let error = store
        .commit_runtime_state(commit)
        .await
        .expect_err("it was collected");
    assert!(error.to_string().contains("does not exist"), "{error}");
    node.shutdown().await;
    Ok(())
}
