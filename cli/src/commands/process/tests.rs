//! Every test runs against the real state machine.

use quorate_client::testing::MemoryTransport;
use serde_json::{Value, json};

use super::*;
use crate::args::{Cli, Command};
use crate::output::{Captured, Format};

/// Runs `quorate process LINE` and returns what it printed and its exit code.
async fn print(client: &Client, line: &str, format: Format) -> (String, u8) {
    let words = ["quorate", "process"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::read_from(words).expect("the line is right");
    let Command::Process(verb) = cli.command else {
        panic!("it is a process verb");
    };
    let captured = Captured::default();
    let result = run(client, verb, &mut captured.printer(format)).await;
    (
        captured.take(),
        result.map_or_else(|failure| failure.exit() as u8, |()| 0),
    )
}

async fn process(client: &Client, line: &str) -> (Value, u8) {
    let (printed, exit) = print(client, line, Format::Json).await;
    (serde_json::from_str(&printed).unwrap_or(Value::Null), exit)
}

fn client() -> Client {
    Client::new(MemoryTransport::new())
}

#[tokio::test(start_paused = true)]
async fn a_record_lives_from_register_to_complete() {
    let client = client();
    let (printed, exit) = print(
        &client,
        "register p --definition {\"image\":\"a:1\"}",
        Format::Json,
    )
    .await;
    assert_eq!(exit, 0);
    assert_eq!(
        printed,
        "{\"id\":\"p\",\"state\":\"running\",\"created_at\":\"2023-11-14T22:13:20.000Z\",\
         \"updated_at\":\"2023-11-14T22:13:20.000Z\",\"last_sequence\":\"0\",\"outcome\":null,\
         \"definition\":{\"image\":\"a:1\"},\"existed\":false}\n"
    );
    let (again, exit) = process(&client, "register p --definition {\"image\":\"a:1\"}").await;
    assert_eq!((&again["existed"], exit), (&json!(true), 0));
    assert_eq!(process(&client, "register p --definition other").await.1, 5);
    let (done, exit) = process(&client, "complete p --state failed --outcome {\"code\":3}").await;
    assert_eq!(
        (&done["state"], &done["outcome"], exit),
        (&json!("failed"), &json!({"code": 3}), 0)
    );
    assert_eq!(process(&client, "append p --type t --payload 1").await.1, 5);
    assert_eq!(process(&client, "get p").await.0["state"], "failed");
    assert_eq!(process(&client, "get q").await.1, 3);
    assert_eq!(process(&client, "list --state running").await.0, json!([]));
    assert_eq!(
        print(&client, "list --state failed", Format::Name).await.0,
        "p\n"
    );
}

#[tokio::test(start_paused = true)]
async fn events_are_numbered_and_stored_once_under_a_key() {
    let client = client();
    process(&client, "register p").await;
    for (line, sequence, duplicate) in [
        ("append p --type started --payload {}", "1", false),
        ("append p --type step --payload text --key k", "2", false),
        ("append p --type step --payload text --key k", "2", true),
    ] {
        let (appended, exit) = process(&client, line).await;
        assert_eq!(exit, 0, "{line}");
        assert_eq!(appended["sequence"], sequence, "{line}");
        assert_eq!(appended["duplicate"], duplicate, "{line}");
    }
    let (printed, _) = print(&client, "events p --after 1", Format::Json).await;
    assert_eq!(
        printed,
        "[{\"process_id\":\"p\",\"sequence\":\"2\",\"type\":\"step\",\
         \"at\":\"2023-11-14T22:13:20.000Z\",\"key\":\"k\",\"payload\":\"text\",\"index\":\"3\"}]\n"
    );
    assert_eq!(
        process(&client, "append p --type step --payload other --key k")
            .await
            .1,
        5
    );
    assert_eq!(process(&client, "events q").await.1, 3);
    assert_eq!(process(&client, "append q --type t --payload 1").await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_does_not_hold_refuses_the_append() {
    let client = client();
    process(&client, "register p").await;
    let lease = client.lease("a=b").owner("w").claim().expect("in bounds");
    let token = match client.execute(lease).await.expect("a cluster") {
        quorate_statemachine::lease::Claimed::Granted(lease) => lease.fencing_token,
        quorate_statemachine::lease::Claimed::Busy(holder) => panic!("held: {holder:?}"),
    };
    let fenced = |token| format!("append p --type t --payload 1 --fence a=b={token}");
    assert_eq!(process(&client, &fenced(token)).await.1, 0);
    assert_eq!(process(&client, &fenced(token + 1)).await.1, 5);
    let complete = format!("complete p --fence a=b={}", token + 1);
    assert_eq!(process(&client, &complete).await.1, 5);
    assert_eq!(process(&client, "get p").await.0["last_sequence"], "1");
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_the_process() {
    let client = client();
    process(&client, "register p").await;
    process(&client, "append p --type a --payload 1").await;
    let follower = client.clone();
    let following =
        tokio::spawn(async move { print(&follower, "events p --follow", Format::Name).await });
    tokio::task::yield_now().await;
    process(&client, "append p --type b --payload 2").await;
    process(&client, "complete p").await;
    assert_eq!(following.await.expect("no panic"), ("1\n2\n".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn listings_go_over_pages() {
    let client = client();
    process(&client, "register p").await;
    for _ in 0..1_002 {
        assert_eq!(process(&client, "append p --type t --payload 1").await.1, 0);
    }
    let (events, _) = process(&client, "events p").await;
    assert_eq!(events.as_array().map(Vec::len), Some(1_002));
    assert_eq!(events[1_001]["sequence"], "1002");
}

#[tokio::test(start_paused = true)]
async fn who_may_use_a_process_and_whom_it_wakes_are_shown() {
    use quorate_statemachine::process::{Grant, PutGrant, SetExternalRef, WakeTarget};

    let client = client();
    let name = |text: &str| Name::parse("name", text).expect("a name");
    let mut register = Register::new(name("p"), b"{}".to_vec());
    register.wake_target = Some(WakeTarget {
        session: name("s1"),
        target: Vec::new(),
    });
    client.execute(register).await.expect("registered");
    for (session, scope) in [("s2", "s2/b"), ("s1", "s1/a")] {
        let grant = Grant {
            scope: name(scope),
            session: name(session),
            process_id: name("p"),
            descriptor: b"{\"label\":\"build\"}".to_vec(),
        };
        client.execute(PutGrant { grant }).await.expect("granted");
    }
    let reference = SetExternalRef {
        id: name("p"),
        external_ref: b"elsewhere".to_vec(),
    };
    client.execute(reference).await.expect("set");
    let (printed, exit) = print(&client, "grants p", Format::Json).await;
    assert_eq!(exit, 0);
    assert_eq!(
        printed,
        "[{\"process_id\":\"p\",\"session\":\"s1\",\"scope\":\"s1/a\",\
         \"descriptor\":{\"label\":\"build\"}},\
         {\"process_id\":\"p\",\"session\":\"s2\",\"scope\":\"s2/b\",\
         \"descriptor\":{\"label\":\"build\"}}]\n"
    );
    assert_eq!(process(&client, "grants q").await.1, 3);
    let (shown, _) = process(&client, "get p").await;
    assert_eq!(shown["external_ref"], "elsewhere");
    assert_eq!(shown["wakes_session"], "s1");
}

#[tokio::test(start_paused = true)]
async fn await_shows_the_record_once_the_process_has_ended() {
    let client = client();
    process(&client, "register p --definition job").await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { process(&client, "await p").await }
    });
    // The clock stands still, so it waits until the append and the end have been noticed.
    process(&client, "append p --type step --payload 1").await;
    assert!(!waiting.is_finished());
    process(&client, "complete p --state failed --outcome why").await;
    let (ended, exit) = waiting.await.expect("no panic");
    assert_eq!((&ended["state"], exit), (&json!("failed"), 0));
    assert_eq!(
        (&ended["outcome"], &ended["definition"]),
        (&json!("why"), &json!("job"))
    );
    assert_eq!(process(&client, "await q").await.1, 3);
}
