//! One session, its graph, and who holds its lease.

use std::time::Duration;

use quorate_statemachine::session::{BlobHash, Commit, GraphDelta, Tombstone};
use serde_json::json;

use super::seed::{adding, blobs, commit, committed, full, hold, inline, name, node, open};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_without_a_commit_has_no_lane_and_no_lease() {
    let client = client();
    open(&client, "s", None).await;
    assert_eq!(
        done(&client, "get s", Format::Json).await,
        "{\"name\":\"s\",\"id\":\"1024\",\"lane\":null,\"revision\":\"0\",\"committed_at\":null,\
         \"nodes\":\"0\",\"work\":\"0\",\"inputs\":\"0\",\"ended_inputs\":\"0\",\"blobs\":\"0\",\
         \"loose_blobs\":\"0\",\"blob_bytes\":\"0\",\"usage_counters\":\"0\",\
         \"attachments\":\"0\",\"created_at\":\"2023-11-14T22:13:20.000Z\",\"head\":null,\
         \"note\":null,\"execution_lease\":null,\"usage\":[]}\n"
    );
    assert_eq!(
        done(&client, "get s", Format::Table).await,
        "FIELD        VALUE\n\
         NAME         s\n\
         ID           1024\n\
         CREATED AT   2023-11-14T22:13:20.000Z (0ms ago)\n\
         HEAD         none: nothing was committed, no lane is bound\n\
         WORK         0\n\
         INPUTS       0 open, 0 ended\n\
         BLOBS        0 (0 bytes), 0 of them loose\n\
         ATTACHMENTS  0\n"
    );
    assert_eq!(
        session(&client, "get s --graph").await["graph_nodes"],
        json!([])
    );
    assert_eq!(done(&client, "get s --graph", Format::Name).await, "");
    assert_eq!(done(&client, "get s", Format::Name).await, "s\n");
}

#[tokio::test(start_paused = true)]
async fn get_shows_all_that_is_known_of_a_session() {
    let client = client();
    full(&client).await;
    tokio::time::advance(Duration::from_secs(20)).await;
    let shown = session(&client, "get s").await;
    let expected = json!({
        "name": "s", "id": "1024", "lane": "main", "revision": "1",
        "committed_at": "2023-11-14T22:13:20.000Z", "nodes": "2", "work": "1", "inputs": "1",
        "ended_inputs": "0", "blobs": "2", "loose_blobs": "0", "blob_bytes": "7",
        "usage_counters": "2", "attachments": "0", "created_at": "2023-11-14T22:13:20.000Z",
        "head": {
            "lane": "main", "revision": "1", "committed_at": "2023-11-14T22:13:20.000Z",
            "age_ms": "20000", "leaf": "n3", "state_bytes": "7", "state_blobs": "2", "roots": "0",
            "graph": {
                "id": "4096", "nodes": "3", "tombstones": "1", "next": "3", "rewritten": "5"
            }
        },
        "note": {"title": "night"},
        "execution_lease": {
            "key": "s/main/1024",
            "lease": {
                "key": "s/main/1024", "owner_id": "w", "incarnation_id": "boot",
                "lease_token": "t", "fencing_token": "2", "ttl_ms": "60000",
                "granted_at": "2023-11-14T22:13:20.000Z",
                "renewed_at": "2023-11-14T22:13:20.000Z",
                "expires_at": "2023-11-14T22:14:20.000Z", "remaining_ms": "40000",
                "renewals": "0", "epoch": "1"
            }
        },
        "usage": [
            {"counter": ["model", "x"], "numbers": ["7", "-1"]},
            {"counter": null, "counter_base64": "/w==", "numbers": ["9223372036854775807"]}
        ]
    });
    assert_eq!(shown, expected);
    let jsonl = done(&client, "get s", Format::Jsonl).await;
    assert_eq!(serde_json::from_str::<Value>(&jsonl).ok(), Some(expected));
}

#[tokio::test(start_paused = true)]
async fn get_tells_people_who_holds_the_lease_until_when_or_that_nobody_does() {
    let client = client();
    full(&client).await;
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(
        done(&client, "get s", Format::Table).await,
        "FIELD            VALUE\n\
         NAME             s\n\
         ID               1024\n\
         CREATED AT       2023-11-14T22:13:20.000Z (20s ago)\n\
         LANE             main\n\
         REVISION         1\n\
         LAST COMMIT      2023-11-14T22:13:20.000Z (20s ago)\n\
         LEAF             n3\n\
         STATE            7 bytes in 2 blobs, and refers to 0 other blobs\n\
         NODES            2, tombstones: 1\n\
         GRAPH            4096, next number 3, rewritten at log index 5\n\
         EXECUTION LEASE  s/main/1024\n\
         HELD BY          \"w\", incarnation \"boot\", with fencing token 2, until \
         2023-11-14T22:14:20.000Z (40s left)\n\
         WORK             1\n\
         INPUTS           1 open, 0 ended\n\
         BLOBS            2 (7 bytes), 0 of them loose\n\
         ATTACHMENTS      0\n\
         NOTE             {\"title\": \"night\"}\n\
         USAGE            [\"model\",\"x\"]: 7, -1\n\
         USAGE            (1 bytes): 9223372036854775807\n"
    );
    tokio::time::advance(Duration::from_secs(41)).await;
    let execution = &session(&client, "get s").await["execution_lease"];
    assert_eq!(execution, &json!({"key": "s/main/1024", "lease": null}));
    let table = done(&client, "get s", Format::Table).await;
    assert!(
        table.contains("\nHELD BY          nobody\n"),
        "nobody holds it: {table}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_graph_is_shown_behind_the_session_without_tombstones() {
    let client = client();
    full(&client).await;
    let shown = session(&client, "get s --graph").await;
    assert_eq!(
        shown["graph_nodes"],
        json!([
            {"id": "n1", "parent": null, "body_bytes": "11", "body": {"say": "a"}},
            {"id": "n3", "parent": "n2", "body_bytes": "1", "body": "c"}
        ])
    );
    assert_eq!(shown["head"]["leaf"], "n3");
    assert_eq!(
        done(&client, "get s --graph", Format::Name).await,
        "n1\nn3\n"
    );
    let table = done(&client, "get s --graph", Format::Table).await;
    let (facts, nodes) = table.split_once("\n\n").expect("two tables");
    assert!(facts.starts_with("FIELD "), "{facts}");
    assert_eq!(
        nodes,
        "NODE  PARENT  BYTES  BODY\n\
         n1            11     {\"say\":\"a\"}\n\
         n3    n2      1      c\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_in_full_for_scripts_and_short_for_people() {
    let client = client();
    let opened = open(&client, "s", None).await;
    let held = hold(&client, &opened, "main").await;
    let large = blobs(&client, &opened, &[b"{\"text\":", b"\"in parts\"}"]).await;
    let long = Content::Inline("x".repeat(100).into());
    let nodes = vec![
        node("blobs", None, large),
        node("long", None, long),
        node("raw", None, Content::Inline((&[0xff_u8, 0][..]).into())),
        node("lines", None, inline("a\nb")),
    ];
    commit(&client, adding(&opened, "main", &held, nodes)).await;
    let nodes = &session(&client, "get s --graph").await["graph_nodes"];
    assert_eq!(
        fields(nodes, "body"),
        [
            &json!({"text": "in parts"}),
            &json!("x".repeat(100)),
            &Value::Null,
            &json!("a\nb")
        ]
    );
    assert_eq!(
        fields(nodes, "body_bytes"),
        [&json!("19"), &json!("100"), &json!("2"), &json!("3")]
    );
    assert_eq!(nodes[2]["body_base64"], "/wA=");
    let table = done(&client, "get s --graph", Format::Table).await;
    let (_, nodes) = table.split_once("\n\n").expect("two tables");
    let short = "x".repeat(60);
    assert_eq!(
        nodes,
        format!(
            "NODE   PARENT  BYTES  BODY\n\
             blobs          19     (19 bytes in 2 blobs)\n\
             long           100    {short}…\n\
             raw            2      (2 bytes)\n\
             lines          3      a\\nb\n"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_gone_when_it_is_read_says_so() {
    let client = client();
    let opened = open(&client, "s", None).await;
    let content = Content::Blobs {
        hashes: vec![BlobHash([9; 32])],
        bytes: 4,
    };
    let read = body(&client, &opened, &content, Format::Json).await;
    let read = serde_json::to_value(read.expect("the cluster answers"));
    assert_eq!(
        read.expect("it is JSON"),
        json!({"body_bytes": "4", "body": null, "body_gone": true})
    );
}

#[tokio::test(start_paused = true)]
async fn a_graph_is_listed_over_all_its_pages() {
    let client = client();
    let nodes: Vec<_> = (0..2_503)
        .map(|at| node(&format!("{at:04}"), None, inline("x")))
        .collect();
    committed(&client, "s", nodes).await;
    let shown = session(&client, "get s --graph").await;
    let ids = fields(&shown["graph_nodes"], "id");
    let expected: Vec<_> = (0..2_503).map(|at| json!(format!("{at:04}"))).collect();
    assert_eq!(ids, expected.iter().collect::<Vec<_>>());
}

fn ids(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().map(|node| node.id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_that_came_after_the_head_was_read_are_not_shown_with_it() {
    let client = client();
    let (opened, held) = committed(&client, "s", vec![node("a", None, inline("1"))]).await;
    let (before, _) = look(&client, &opened.name).await.expect("it is there");
    let more = vec![node("b", Some("a"), inline("2"))];
    commit(&client, adding(&opened, "main", &held, more)).await;
    let seen = graph::nodes_of(&client, &before).await.expect("read");
    assert_eq!(seen.as_deref().map(ids), Some(vec!["a"]), "b came later");
    let (after, _, nodes) = graph::read(&client, &opened.name).await.expect("read");
    assert_eq!(ids(&nodes), ["a", "b"]);
    assert!(graph::is_same(&before, &after), "it has grown, no more");
}

#[tokio::test(start_paused = true)]
async fn a_graph_that_is_rewritten_while_it_is_read_is_read_again() {
    let transport = MemoryTransport::new();
    let client = Client::new(transport.clone());
    let nodes = vec![node("a", None, inline("1")), node("b", None, inline("2"))];
    let (opened, held) = committed(&client, "s", nodes).await;
    let (first, _) = look(&client, &opened.name).await.expect("it is there");
    let hidden = Tombstone {
        session: opened.clone(),
        nodes: vec![name("a")],
    };
    client.execute(hidden).await.expect("hidden");
    let seen = graph::nodes_of(&client, &first).await.expect("read");
    assert_eq!(seen, None, "a node was hidden");
    let (second, _, nodes) = graph::read(&client, &opened.name).await.expect("read");
    assert_eq!(ids(&nodes), ["b"]);
    assert!(!graph::is_same(&first, &second));
    let replaced = Commit {
        graph: GraphDelta::Replace {
            staged: None,
            nodes: vec![node("c", None, inline("3"))],
        },
        ..adding(&opened, "main", &held, Vec::new())
    };
    commit(&client, replaced).await;
    // The old graph is removed bit by bit, by the sweep.
    transport.tick();
    let seen = graph::nodes_of(&client, &second).await.expect("read");
    assert_eq!(seen, None, "it was replaced");
    let (third, _, nodes) = graph::read(&client, &opened.name).await.expect("read");
    assert_eq!(ids(&nodes), ["c"]);
    assert!(!graph::is_same(&second, &third));
}

#[test]
fn a_graph_that_does_not_stand_still_is_exit_code_5() {
    let failure = graph::restless(&name("s"));
    assert_eq!(
        (failure.exit(), failure.message()),
        (
            Exit::Lost,
            "session \"s\": its graph was rewritten in each of 5 tries to read it, so nothing is \
             shown; try again, or without --graph"
        )
    );
}
