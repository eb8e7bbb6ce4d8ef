//! Every test runs against the real state machine. What `lock run` does with processes is tested
//! on a real cluster (`tests/tests/lock_run.rs`).

use std::time::Duration;

use quorate_client::LockGuard;
use quorate_client::testing::MemoryTransport;
use quorate_statemachine::Owner;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::run::Request;
use super::*;
use crate::args::lock::Run;
use crate::args::{Cli, Command};
use crate::output::Captured;

type Ended = Result<u8, Failure>;

fn verb(line: &str) -> Verb {
    let words = ["quorate", "lock"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::read_from(words).expect("the line is right");
    match cli.command {
        Command::Lock(verb) => verb,
        _ => panic!("it is a lock verb"),
    }
}

/// Runs `quorate lock LINE -o json` and returns what it printed and its exit code.
async fn lock(client: &Client, line: &str) -> (Value, u8) {
    let (printed, ended) = print(client, line, Format::Json).await;
    let exit = ended.unwrap_or_else(|failure| failure.exit() as u8);
    (serde_json::from_str(&printed).unwrap_or(Value::Null), exit)
}

async fn print(client: &Client, line: &str, format: Format) -> (String, Ended) {
    let captured = Captured::default();
    let ended = run(client, verb(line), &mut captured.printer(format)).await;
    (captured.take(), ended)
}

async fn refused(client: &Client, line: &str) -> Failure {
    let (_, ended) = print(client, line, Format::Json).await;
    ended.expect_err(line)
}

fn client() -> (Client, MemoryTransport) {
    let transport = MemoryTransport::new();
    (Client::new(transport.clone()), transport)
}

fn owner(text: &str) -> Owner {
    let name = |text: &str| Name::parse("name", text).expect("a name");
    Owner::new(name(text), name("boot"))
}

async fn held(client: &Client, key: &str, by: &str) -> LockGuard {
    let asked = client.lock(key).holder(owner(by)).try_acquire().await;
    asked.expect("it is free")
}

/// Has `by` wait for `key`, and comes back when it does.
async fn waiting(client: &Client, key: &str, by: &str) -> JoinHandle<Option<LockGuard>> {
    let asked = client
        .lock(key)
        .holder(owner(by))
        .wait_ttl(Duration::from_secs(60));
    let task = tokio::spawn(async move { asked.acquire().await.ok() });
    while !waiters_named(client, key).await.contains(&by.to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task
}

async fn waiters_named(client: &Client, key: &str) -> Vec<String> {
    let key = Name::parse("key", key).expect("a name");
    let (members, _) = waiters_of(client, &key, 0).await.expect("it is up");
    let names = members.iter().map(|it| it.owner.owner_id.to_string());
    names.collect()
}

/// The acquisition half of `lock run LINE -- true`.
async fn acquire(client: &Client, line: &str, around: Option<&str>) -> Result<LockGuard, Failure> {
    let Verb::Run(args) = verb(&format!("run {line} -- true")) else {
        panic!("it is a run");
    };
    let args: Run = args;
    let around = around.map(str::to_owned);
    let request = Request::new(client, &args, around, Format::Json)?;
    request.acquire().await
}

#[tokio::test(start_paused = true)]
async fn a_lock_has_the_fields_that_scripts_rely_on() {
    let (client, _) = client();
    let asked = client.lock("k").holder(owner("a")).metadata(r#"{"pid":7}"#);
    let guard = asked.try_acquire().await.expect("it is free");
    let waiter = waiting(&client, "k", "b").await;
    let id = acquisition_text(guard.hold().id);
    let (printed, _) = print(&client, "list", Format::Json).await;
    let shown: Value = serde_json::from_str(&printed).expect("JSON");
    let holder = &shown[0]["holders"][0];
    let times = ["granted_at", "renewed_at", "expires_at"].map(|it| holder[it].clone());
    for time in &times {
        assert!(time.as_str().is_some_and(|it| it.ends_with('Z')), "{time}");
    }
    let expected = json!([{
        "key": "k", "permits": null, "exclusive": true, "waiters": 1, "holder_count": 1,
        "holders": [{
            "owner_id": "a", "incarnation_id": "boot", "acquisition": id, "mode": "exclusive",
            "fencing_token": "1", "ttl_ms": "10000", "granted_at": times[0],
            "renewed_at": times[1], "expires_at": times[2],
            "remaining_ms": holder["remaining_ms"], "metadata": {"pid": 7},
        }],
    }]);
    assert_eq!(shown, expected);
    let (one, exit) = lock(&client, "get k").await;
    assert_eq!((&one["key"], exit), (&json!("k"), 0));
    waiter.abort();
}

#[tokio::test(start_paused = true)]
async fn a_table_has_a_line_for_each_holder() {
    let (client, _) = client();
    let shared = |by: &str| client.lock("doc").holder(owner(by)).shared();
    let _a = shared("a").try_acquire().await.expect("it is free");
    let _b = shared("b").try_acquire().await.expect("it is shared");
    let permit = client.lock("pool").holder(owner("c")).permit_of(3);
    let _c = permit.try_acquire().await.expect("it is free");
    let (table, _) = print(&client, "list", Format::Table).await;
    assert_eq!(
        table,
        "KEY   MODE         HOLDER  TOKEN  REMAINING  WAITERS\n\
         doc   shared       a       1      10s        0\n\
         doc   shared       b       2      10s        0\n\
         pool  permit of 3  c       3      10s        0\n"
    );
    let (names, _) = print(&client, "list", Format::Name).await;
    assert_eq!(names, "doc\npool\n");
    let (table, _) = print(&client, "get pool", Format::Table).await;
    assert_eq!(table.lines().count(), 2, "{table}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_lock_is_exit_code_3_and_a_resting_one_says_so() {
    let (client, transport) = client();
    assert_eq!(lock(&client, "get k").await.1, 3);
    let asked = client.lock("k").holder(owner("a"));
    let asked = asked.delay_after_death(Duration::from_secs(60));
    let (hold, _) = asked.acquire_hold().await.expect("it is free");
    tokio::time::advance(hold.ttl + Duration::from_secs(1)).await;
    transport.tick();
    let (shown, exit) = lock(&client, "get k").await;
    assert_eq!((exit, shown["exclusive"].clone()), (0, json!(false)));
    assert!(shown["rests_until"].is_string(), "{shown}");
    let (table, _) = print(&client, "get k", Format::Table).await;
    assert!(table.contains("(rests for 59s: a holder died)"), "{table}");
    let failure = acquire(&client, "k --wait 0s", None)
        .await
        .expect_err("it rests");
    assert_eq!(failure.exit(), Exit::Contention);
    assert!(
        failure.message().contains("because a holder died"),
        "{failure:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn listings_go_over_pages_and_stop_at_their_limit() {
    let (client, _) = client();
    for number in 0..1_003 {
        let key = format!("jobs/{number:04}");
        let asked = client
            .lock(key)
            .holder(owner("a"))
            .ttl(Duration::from_secs(3_600));
        asked.acquire_hold().await.expect("it is free");
    }
    let count = |(rows, _): &(Value, _)| rows.as_array().map(Vec::len);
    assert_eq!(count(&lock(&client, "list").await), Some(1_003));
    assert_eq!(
        count(&lock(&client, "list --limit 1001").await),
        Some(1_001)
    );
    assert_eq!(count(&lock(&client, "list jobs/000").await), Some(10));
    assert_eq!(count(&lock(&client, "list nothing").await), Some(0));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_shown_in_line_over_pages() {
    use quorate_statemachine::lock::{Acquire, Mode};
    use quorate_statemachine::request::RequestId;
    let (client, _) = client();
    for number in 0..1_003_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let acquire = Acquire {
            key: Name::parse("key", "k").expect("a name"),
            id: RequestId { id, not_before: 0 },
            owner: owner(&format!("o{number}")),
            mode: Mode::Exclusive,
            ttl_ms: 3_600_000,
            wait_ttl_ms: 3_600_000,
            max_wait_ms: (number == 1).then_some(30_000),
            reentrant: false,
            delay_ms: 0,
            metadata: Vec::new(),
        };
        client.execute(acquire).await.expect("it is up");
    }
    let (rows, exit) = lock(&client, "waiters k").await;
    assert_eq!((rows.as_array().map(Vec::len), exit), (Some(1_002), 0));
    assert_eq!(rows[1_001]["position"], "1002");
    assert_eq!(rows[1_001]["owner_id"], "o1002");
    assert_eq!(rows[1]["gives_up_at"], Value::Null);
    let (rows, _) = lock(&client, "waiters k --limit 2").await;
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    let (table, _) = print(&client, "waiters k --limit 1", Format::Table).await;
    assert_eq!(
        table,
        "POSITION  WAITER                                OWNER  MODE       WAITING SINCE\
         \u{20}            \
         GIVES UP AT\n\
         1         00000001-0000-0000-0000-000000000000  o1     exclusive  2023-11-14T22:13:20.000Z\
         \u{20} 2023-11-14T22:13:50.000Z\n"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_a_wait_and_no_hold() {
    let (client, _) = client();
    let guard = held(&client, "k", "a").await;
    let waiter = waiting(&client, "k", "b").await;
    let (names, _) = print(&client, "waiters k", Format::Name).await;
    let id = names.trim().to_owned();
    let (cancelled, exit) = lock(&client, &format!("cancel-wait k {id}")).await;
    assert_eq!((exit, &cancelled["cancelled"]), (0, &json!(true)));
    assert!(waiter.await.expect("it ends").is_none(), "it was told");
    let (_, exit) = lock(&client, &format!("cancel-wait k {id}")).await;
    assert_eq!(exit, 0, "once more is the same");
    let hold = acquisition_text(guard.hold().id);
    let failure = refused(&client, &format!("cancel-wait k {hold}")).await;
    assert_eq!(failure.exit(), Exit::Lost);
    assert!(
        failure.message().contains("holds it with fencing token 1"),
        "{failure:?}"
    );
    let released = guard.release().await;
    released.expect("it is held");
    let failure = refused(&client, &format!("cancel-wait k {hold}")).await;
    assert!(
        failure.message().contains("over before (released)"),
        "{failure:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_none_is_refused() {
    let (client, _) = client();
    let failure = refused(&client, "cancel-wait k nonsense").await;
    assert_eq!(failure.exit(), Exit::Invalid);
    assert!(
        failure.message().contains("actual \"nonsense\""),
        "{failure:?}"
    );
    let unknown = "cancel-wait k 0198a2b4-0000-7000-8000-000000000000";
    assert_eq!(refused(&client, unknown).await.exit(), Exit::NotFound);
}

#[tokio::test(start_paused = true)]
async fn the_fencing_token_alone_releases() {
    let (client, _) = client();
    let guard = held(&client, "k", "a").await;
    let token = guard.token();
    let waiter = waiting(&client, "k", "b").await;
    let (released, exit) = lock(&client, &format!("release k --token {token}")).await;
    assert_eq!((exit, &released["released"]), (0, &json!(true)));
    let next = waiter.await.expect("it ends").expect("it is next");
    let failure = refused(&client, &format!("release k --token {token}")).await;
    assert_eq!(failure.exit(), Exit::Lost);
    let words = format!("held by \"b\" with fencing token {}", next.token());
    assert!(failure.message().contains(&words), "{failure:?}");
    next.release().await.expect("it is held");
    let failure = refused(&client, &format!("release k --token {token}")).await;
    assert!(failure.message().contains("nobody holds it"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_not_shown_is_not_called_lost() {
    let (client, _) = client();
    let mut last = 0;
    for number in 0..17 {
        let asked = client.lock("pool").holder(owner(&format!("o{number}")));
        let (hold, _) = asked
            .permit_of(20)
            .acquire_hold()
            .await
            .expect("it is free");
        last = hold.fencing_token;
    }
    let failure = refused(&client, &format!("release pool --token {last}")).await;
    assert_eq!(failure.exit(), Exit::Error);
    assert!(
        failure.message().contains("the oldest 16 of 17"),
        "{failure:?}"
    );
    let (shown, _) = lock(&client, "get pool").await;
    assert_eq!(
        (&shown["holder_count"], &shown["permits"]),
        (&json!(17), &json!(20))
    );
    let (table, _) = print(&client, "get pool", Format::Table).await;
    assert!(table.contains("(and 1 more)"), "{table}");
    let (revoked, exit) = lock(&client, &format!("revoke pool --token {last} --yes")).await;
    assert_eq!((exit, &revoked[0]["owner_id"]), (0, &json!("o16")));
}

#[tokio::test(start_paused = true)]
async fn an_operator_revokes_only_with_a_word() {
    let (client, _) = client();
    let guard = held(&client, "k", "a").await;
    assert_eq!(lock(&client, "revoke k --yes --token 999").await.1, 3);
    let (revoked, exit) = lock(&client, "revoke k --yes --by ops").await;
    assert_eq!(exit, 0);
    assert_eq!(
        (&revoked[0]["owner_id"], &revoked[0]["remaining_ms"]),
        (&json!("a"), &json!("0"))
    );
    assert_eq!(lock(&client, "revoke k --yes").await.1, 3);
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_would_not_wait_names_the_holder() {
    let (client, _) = client();
    let _guard = held(&client, "k", "a").await;
    let failure = acquire(&client, "k --wait 0s", None)
        .await
        .expect_err("it is held");
    assert_eq!(failure.exit(), Exit::Contention);
    assert_eq!(
        failure.message(),
        "lock \"k\" is held by \"a\" with fencing token 1, for 10s more unless renewed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_wait_ran_out_is_exit_code_4() {
    let (client, _) = client();
    let _guard = held(&client, "k", "a").await;
    let failure = acquire(&client, "k --wait 3s", None)
        .await
        .expect_err("it is held");
    assert_eq!(failure.exit(), Exit::Contention);
    let words = "lock \"k\" was not granted within 3s: it is held by \"a\"";
    assert!(failure.message().starts_with(words), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_wait_was_cancelled_is_exit_code_4() {
    let (client, _) = client();
    let _guard = held(&client, "k", "a").await;
    let own = client.clone();
    let run = tokio::spawn(async move { acquire(&own, "k --owner me", None).await.err() });
    while !waiters_named(&client, "k").await.contains(&"me".to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (names, _) = print(&client, "waiters k", Format::Name).await;
    assert_eq!(lock(&client, &format!("cancel-wait k {names}")).await.1, 0);
    let failure = run.await.expect("it ends").expect("it was cancelled");
    assert_eq!(failure.exit(), Exit::Contention);
    assert!(failure.message().contains("was cancelled"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_inside_another_asks_in_its_name_and_hears_of_a_deadlock() {
    let (client, _) = client();
    let _a = acquire(&client, "a", Some("one/1"))
        .await
        .expect("it is free");
    let _b = acquire(&client, "b", Some("team/two/2"))
        .await
        .expect("it is free");
    let own = client.clone();
    let waits = tokio::spawn(async move { acquire(&own, "b", Some("one/1")).await.is_ok() });
    while waiters_named(&client, "b").await != ["one"] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let circle = acquire(&client, "a", Some("team/two/2"))
        .await
        .expect_err("a circle");
    assert_eq!(circle.exit(), Exit::Error);
    assert!(
        circle
            .message()
            .contains("team/two waits for a, one waits for b"),
        "{circle:?}"
    );
    waits.abort();
    let failure = acquire(&client, "k", Some("nonsense"))
        .await
        .expect_err("no owner");
    assert_eq!(failure.exit(), Exit::Invalid);
}

#[tokio::test(start_paused = true)]
async fn arguments_out_of_bounds_state_limit_and_actual() {
    let (client, transport) = client();
    let long = "k".repeat(513);
    for (line, words) in [
        (
            long.as_str(),
            "key is too long: limit 512 bytes, actual 513 bytes",
        ),
        (
            "k --ttl 0s",
            "ttl_ms is out of range: limit 1 to 86400000 ms, actual 0 ms",
        ),
        (
            "k --ttl 25h",
            "ttl_ms is out of range: limit 1 to 86400000 ms, actual 90000000 ms",
        ),
        (
            "k --wait 31d",
            "max_wait_ms is out of range: limit 0 to 2592000000, actual 2678400000",
        ),
        (
            "k --delay 6m",
            "delay_ms is out of range: limit 0 to 300000, actual 360000",
        ),
        (
            "k --permits 10001",
            "permits is out of range: limit 1 to 10000, actual 10001",
        ),
    ] {
        let failure = acquire(&client, line, None).await.expect_err(line);
        assert_eq!((failure.exit(), failure.message()), (Exit::Invalid, words));
    }
    assert!(transport.tries().is_empty(), "nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_a_leader_is_exit_code_7() {
    let (client, transport) = client();
    transport.set_down(true);
    let client = client.with_timeout(Duration::from_millis(200));
    assert_eq!(lock(&client, "list").await.1, 7);
    let failure = acquire(&client, "k", None).await.expect_err("it is down");
    assert_eq!(failure.exit(), Exit::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn the_graph_shows_chains_of_those_who_wait() {
    let (client, _) = client();
    let (empty, _) = print(&client, "graph", Format::Table).await;
    assert_eq!(empty, "nobody waits\n");
    let _a = held(&client, "x", "a").await;
    let _b = held(&client, "y", "b").await;
    let waits = [
        waiting(&client, "x", "b").await,
        waiting(&client, "y", "c").await,
    ];
    let (text, _) = print(&client, "graph", Format::Table).await;
    let lines: Vec<_> = text.lines().map(|line| line.split(", ").next()).collect();
    let line = |text| Some(text);
    assert_eq!(lines[0], line("a holds x"), "{text}");
    assert!(text.contains("\n  1. b has waited "), "{text}");
    assert_eq!(lines[2], line("    b holds y"), "{text}");
    assert!(text.contains("\n      1. c has waited "), "{text}");
    assert!(!text.contains("DEADLOCK"), "{text}");
    let (edges, exit) = lock(&client, "graph").await;
    assert_eq!(exit, 0);
    let edge = |at: usize| {
        ["waiter_owner_id", "key", "holder_owner_id", "fencing_token"]
            .map(|field| edges[at][field].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(edge(0), ["b", "x", "a", "1"]);
    assert_eq!(edge(1), ["c", "y", "b", "2"]);
    assert_eq!(edges[0]["deadlock"], json!(false));
    let (edges, _) = lock(&client, "graph y").await;
    assert_eq!(edges.as_array().map(Vec::len), Some(1));
    waits.iter().for_each(JoinHandle::abort);
}
