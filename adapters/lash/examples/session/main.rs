//! A session of the lash runtime that outlives its hosts.
//!
//! Three handles of one store stand for three machines. A conversation is begun on the first of
//! them and left with work in its queues, and then it is taken over twice: from a host that died
//! between two turns, and from a host that died in the middle of one. There is no model and no
//! network, only a script which answers from what it is sent, so that a host can give the right
//! answer only if it was given the whole history.
//!
//! The story uses nothing of the store but `SessionStoreFactory` and `RuntimePersistence`.
//!
//! ```sh
//! quorate dev &
//! cargo run -p quorate-lash --example session -- 127.0.0.1:7400
//! ```

pub mod hosted;

use std::error::Error;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hosted::{Host, Script};
use lash::LashSession;
use lash::persistence::SessionStoreFactory;
use quorate_lash::QuorateSessions;

/// The story can fail for reasons of the store, of the runtime and of the machine, and its
/// caller only has to know that it did.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the script answers, each time after the number of messages that it was sent in the
/// name of the user. The wake of a process is one of them.
///
/// There is no fifth answer. The runtime commits the input of a turn before it asks the
/// model, so the turn that was interrupted has left its input in the history, and the turn
/// that replaced it has put the same input there again.
pub const ANSWERS: [&str; 6] = [
    "1: hello",
    "2: {\"booking\":1}",
    "3: queued while idle",
    "4: the process is done",
    "6: queued before the fall",
    "7: goodbye",
];

/// The inputs that are left in the queue, each with the name under which a client would send
/// it again if it never learned what became of it.
const INPUTS: [(&str, &str); 2] = [
    ("idle", "queued while idle"),
    ("fall", "queued before the fall"),
];

/// What the story leaves behind. All of it is read from the store, except for the runs of the
/// tool, which the script counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Turns that ended with an answer.
    pub turns: usize,
    /// Turns that were begun, among them the one that was interrupted.
    pub begun: usize,
    /// The revision of the head after the last commit.
    pub head_revision: u64,
    /// What the user said, in the order of the history.
    pub heard: Vec<String>,
    /// What the script answered, in the order of the history.
    pub answers: Vec<String>,
    /// How often the tool ran, on all hosts together.
    pub tool_runs: usize,
    /// Queued batches and pending inputs that nobody has settled.
    pub left: usize,
}

/// Tells the story on three handles of one store, one a host. `died` is told which host has died,
/// before the next one goes on.
pub async fn story(
    [first, second, third]: [Arc<dyn SessionStoreFactory>; 3],
    mut died: impl AsyncFnMut(usize) -> Outcome<()>,
) -> Outcome<Report> {
    let script = Arc::new(Script::default());
    let id = session_id()?;
    opening(&first, &script, &id).await?;
    died(0).await?;

    let host = Host::start("second", &second, &script)?;
    let session = host.open(&id).await?;
    let answers = hosted::drain(&session, 2).await?;
    tell("the second host works off the queue", &answers);

    let heir = Host::start("third", &third, &script)?;
    let inherited = heir.open(&id).await?;
    interruption(host, session, &inherited, &script).await?;
    died(1).await?;
    let answers = hosted::drain(&inherited, 1).await?;
    tell("the third host works off the queue", &answers);
    let answer = hosted::turn(&inherited, "goodbye").await?;
    tell("the third host goes on", &[answer]);
    hosted::report(&inherited, &third, &script, &INPUTS).await
}

/// Begins the conversation on the first host, which leaves work behind and dies between two
/// turns.
async fn opening(
    factory: &Arc<dyn SessionStoreFactory>,
    script: &Arc<Script>,
    id: &str,
) -> Outcome<()> {
    let host = Host::start("first", factory, script)?;
    let session = host.open(id).await?;
    let answer = hosted::turn(&session, "hello").await?;
    tell("the first host begins", &[answer]);
    let answer = hosted::turn(&session, "book a seat").await?;
    tell("the first host runs the tool", &[answer]);
    hosted::enqueue(&session, INPUTS[0]).await?;
    hosted::queue_work(&session, factory).await?;
    tell("the first host dies, idle, with work in the queue", &[]);
    drop((session, host));
    Ok(())
}

/// Lets a host die in the middle of a turn of queued work.
///
/// Neither a hanging turn nor the end of the task that ran it makes room for the heir: the
/// lease and the claims of the turn are held in the name of the host, for as long as it lives
/// or for as long as they last.
async fn interruption(
    host: Host,
    session: LashSession,
    heir: &LashSession,
    script: &Script,
) -> Outcome<()> {
    hosted::enqueue(&session, INPUTS[1]).await?;
    script.hold_next();
    let working = session.clone();
    let turn = tokio::spawn(async move { working.queued_turn().run().await });
    script.held().await;
    tell("the second host is in the middle of a turn", &[]);
    ensure(
        hosted::busy(heir).await?,
        "two hosts were given one session",
    )?;

    turn.abort();
    ensure(
        turn.await.is_err_and(|error| error.is_cancelled()),
        "a turn ended without an answer of the model",
    )?;
    ensure(
        hosted::busy(heir).await?,
        "the lease of a living host was given away",
    )?;
    tell("the second host dies", &[]);
    drop((session, host));
    Ok(())
}

/// A name that no earlier story has used, for the store may remember those.
fn session_id() -> Outcome<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(format!("story-{}-{}", std::process::id(), now.as_nanos()))
}

fn ensure(holds: bool, otherwise: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn tell(event: &str, answers: &[String]) {
    println!("{event}");
    for answer in answers {
        println!("    {answer}");
    }
}

/// What the story must leave behind, whatever happened to the nodes beside it.
pub fn check(report: &Report) -> Outcome<()> {
    ensure(
        report.answers == ANSWERS,
        "the answers are not those of the script",
    )?;
    ensure(report.tool_runs == 1, "the tool did not run exactly once")?;
    ensure(report.left == 0, "work was left in the queue")
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let endpoint = std::env::args().nth(1);
    let endpoint = endpoint.unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let host = || QuorateSessions::connect([endpoint.clone()]).build();
    let hosts: [Arc<dyn SessionStoreFactory>; 3] =
        [Arc::new(host()?), Arc::new(host()?), Arc::new(host()?)];
    let report = story(hosts, async |_| Ok(())).await?;
    println!("{report:#?}");
    check(&report)
}
