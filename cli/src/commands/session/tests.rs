//! Every test runs against the real state machine.

use std::time::Duration;

use quorate_client::testing::MemoryTransport;
use quorate_statemachine::session::Delete;
use serde_json::Value;

use super::*;
use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::output::Captured;

mod get;
mod lanes;
mod seed;

use seed::{full, open};

/// Runs `quorate session LINE` and returns what it printed and how it ended.
async fn print(client: &Client, line: &str, format: Format) -> (String, Result<(), Failure>) {
    let words = ["quorate", "session"]
        .into_iter()
        .chain(line.split_whitespace());
    let cli = Cli::read_from(words).expect("the line is right");
    let Command::Session(verb) = cli.command else {
        panic!("it is a session verb");
    };
    let captured = Captured::default();
    let result = run(client, verb, &mut captured.printer(format)).await;
    (captured.take(), result)
}

/// What a line prints that is done.
async fn done(client: &Client, line: &str, format: Format) -> String {
    let (printed, result) = print(client, line, format).await;
    assert_eq!(result, Ok(()), "{line}");
    printed
}

async fn session(client: &Client, line: &str) -> Value {
    let printed = done(client, line, Format::Json).await;
    serde_json::from_str(&printed).expect("it is JSON")
}

async fn failure(client: &Client, line: &str) -> (Exit, String) {
    let (printed, result) = print(client, line, Format::Json).await;
    assert_eq!(printed, "", "{line}: data is for what was done");
    let failure = result.expect_err(line);
    (failure.exit(), failure.message().to_owned())
}

fn client() -> Client {
    Client::new(MemoryTransport::new())
}

fn fields<'a>(rows: &'a Value, field: &str) -> Vec<&'a Value> {
    let rows = rows.as_array().expect("a list");
    rows.iter().map(|row| &row[field]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_listing_has_the_fields_that_scripts_rely_on() {
    let client = client();
    full(&client).await;
    open(&client, "t", None).await;
    let printed = done(&client, "list", Format::Json).await;
    let (first, _) = printed.split_once("},").expect("two rows");
    assert_eq!(
        first,
        "[{\"name\":\"s\",\"id\":\"1024\",\"lane\":\"main\",\"revision\":\"1\",\
         \"committed_at\":\"2023-11-14T22:13:20.000Z\",\"nodes\":\"2\",\"work\":\"1\",\
         \"inputs\":\"1\",\"ended_inputs\":\"0\",\"blobs\":\"2\",\"loose_blobs\":\"0\",\
         \"blob_bytes\":\"7\",\"usage_counters\":\"2\",\"attachments\":\"0\",\
         \"created_at\":\"2023-11-14T22:13:20.000Z\""
    );
    assert_eq!(
        done(&client, "list", Format::Table).await,
        "NAME  LANE  REVISION  NODES  WORK  INPUTS  BLOB BYTES  LAST COMMIT\n\
         s     main  1         2      1     1       7           2023-11-14T22:13:20.000Z\n\
         t           0         0      0     0       0\n"
    );
    let listed = session(&client, "list").await;
    let got = session(&client, "get s").await;
    for (field, value) in listed[0].as_object().expect("an object") {
        assert_eq!(&got[field], value, "{field} is the same in both");
    }
}

#[tokio::test(start_paused = true)]
async fn listings_go_over_pages_and_stop_at_their_limit() {
    let client = client();
    for number in 0..1_003 {
        open(&client, &format!("jobs/{number:04}"), None).await;
    }
    open(&client, "other", None).await;
    for (line, count) in [
        ("list", 1_004),
        ("list jobs/", 1_003),
        ("list --limit 1001", 1_001),
        ("list nothing", 0),
    ] {
        let rows = session(&client, line).await;
        assert_eq!(rows.as_array().map(Vec::len), Some(count), "{line}");
    }
    assert_eq!(
        done(&client, "list jobs/000 --limit 2", Format::Name).await,
        "jobs/0000\njobs/0001\n"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_to_list_is_a_header_an_empty_list_or_nothing() {
    let client = client();
    assert_eq!(
        done(&client, "list", Format::Table).await,
        "NAME  LANE  REVISION  NODES  WORK  INPUTS  BLOB BYTES  LAST COMMIT\n"
    );
    open(&client, "s", None).await;
    for line in ["list none", "inputs s", "inputs s --all", "work s"] {
        assert_eq!(done(&client, line, Format::Json).await, "[]\n", "{line}");
        assert_eq!(done(&client, line, Format::Jsonl).await, "", "{line}");
        assert_eq!(done(&client, line, Format::Name).await, "", "{line}");
        let table = done(&client, line, Format::Table).await;
        assert_eq!(table.lines().count(), 1, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_there_is_exit_code_3() {
    let client = client();
    let opened = open(&client, "s", None).await;
    let delete = Delete { name: opened.name };
    client.execute(delete).await.expect("deleted");
    for line in ["get s", "get s --graph", "inputs s", "work s"] {
        assert_eq!(
            failure(&client, line).await,
            (Exit::NotFound, "session \"s\" does not exist".to_owned()),
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn arguments_out_of_bounds_state_limit_and_actual() {
    let client = client();
    open(&client, "s", None).await;
    let long = "n".repeat(241);
    for verb in ["get", "get --graph", "inputs", "work"] {
        assert_eq!(
            failure(&client, &format!("{verb} {long}")).await,
            (
                Exit::Invalid,
                "name is too large: limit 240 bytes, actual 241 bytes".to_owned()
            ),
            "{verb}"
        );
    }
    for verb in ["inputs", "work"] {
        assert_eq!(
            failure(&client, &format!("{verb} s --lane {long}")).await,
            (
                Exit::Invalid,
                "lane is too large: limit 240 bytes, actual 241 bytes".to_owned()
            ),
            "{verb}"
        );
        assert_eq!(
            failure(&client, &format!("{verb} s --lane=")).await,
            (
                Exit::Invalid,
                "lane must not be empty: limit 1 to 512 bytes, actual 0 bytes".to_owned()
            ),
            "{verb}"
        );
    }
    assert_eq!(
        failure(&client, &format!("list {}", "p".repeat(513))).await,
        (
            Exit::Invalid,
            "prefix is too large: limit 512 bytes, actual 513 bytes".to_owned()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_a_leader_is_exit_code_7() {
    let transport = MemoryTransport::new();
    let client = Client::new(transport.clone()).with_timeout(Duration::from_millis(200));
    transport.set_down(true);
    for line in ["list", "get s", "inputs s", "work s"] {
        assert_eq!(failure(&client, line).await.0, Exit::Unreachable, "{line}");
    }
}
