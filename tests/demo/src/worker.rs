//! A worker: claims an item, hashes its file, and settles it together with its event, in one
//! command that is refused once the claim is over.

use std::io::{BufRead, Read};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use quorate_client::statemachine::process::Append;
use quorate_client::statemachine::queue::{ClaimedItem, ItemId, Outcome, Settle};
use quorate_client::statemachine::{FencingToken, Name, Owner, Precondition, Refusal, Subject};
use quorate_client::{Client, ClientError, QueueClient, incarnation};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::job::{Finding, HASHED, Order, Report, TTL, Task, UNREADABLE};

/// How long a call may take. Longer than a change of leader, so that a worker hardly sees one.
const CALL_MAX: Duration = Duration::from_secs(15);

/// How long to wait for an item before looking at the orders again.
const WAIT: Duration = Duration::from_secs(1);

/// Arguments of `worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    process: String,
    #[arg(long)]
    name: String,
}

/// Works until stdin ends.
pub async fn run(args: WorkerArgs) -> Result<()> {
    let client = Client::connect(args.endpoints)?.with_timeout(CALL_MAX);
    let owner = Owner::new(
        Name::parse("owner_id", args.name.clone())?,
        Name::parse("incarnation_id", incarnation())?,
    );
    let queue = client
        .queue(args.queue)?
        .with_owner(owner)
        .with_visibility(TTL);
    let mut worker = Worker {
        process: Name::parse("process", args.process)?,
        name: args.name,
        orders: orders(),
        hold: false,
        client,
        queue,
    };
    while worker.goes_on() {
        match worker.claim().await {
            Ok(items) => {
                for item in items {
                    worker.work(item).await?;
                }
            }
            Err(error) if error.is_passing() => say(&Report::Unknown { item: None })?,
            Err(error) => return Err(error).context("claiming an item"),
        }
    }
    Ok(())
}

struct Worker {
    client: Client,
    queue: QueueClient,
    process: Name,
    name: String,
    orders: mpsc::Receiver<Order>,
    hold: bool,
}

/// A claim in hand.
#[derive(Clone, Copy)]
struct Claim {
    item: ItemId,
    token: FencingToken,
}

impl Worker {
    /// Takes what was ordered; false when there will be no more orders.
    fn goes_on(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Hold) => self.hold = true,
                Ok(Order::Go) => {}
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    async fn claim(&self) -> Result<Vec<ClaimedItem>, ClientError> {
        let ready = self.queue.claim(1).await?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        self.queue.claim_wait(1, WAIT).await
    }

    async fn work(&mut self, claimed: ClaimedItem) -> Result<()> {
        let claim = claimed.item.claim.context("a claimed item has a claim")?;
        let claim = Claim {
            item: claimed.item.item_id,
            token: claim.fencing_token,
        };
        let task: Task = serde_json::from_slice(&claimed.payload).context("the item's payload")?;
        let sha256 = self.hash(&task.path, claim).await?;
        if std::mem::take(&mut self.hold) {
            say(&Report::Holding {
                item: claim.item,
                token: claim.token,
            })?;
            while !matches!(self.orders.recv().await, Some(Order::Go) | None) {}
        }
        let item = claim.item;
        match self.write(task.path, sha256, claim).await {
            Ok(()) => say(&Report::Done { item }),
            Err(error) if is_stale(&error) => say(&Report::Stale {
                item,
                token: claim.token,
            }),
            Err(error) if error.is_passing() || error.may_have_happened() => {
                eprintln!("{}: item {item}: {error}", self.name);
                say(&Report::Unknown { item: Some(item) })
            }
            Err(error) => bail!("item {item}: {error}"),
        }
    }

    /// Hashes the file on a thread and keeps the claim alive meanwhile. A renewal that is refused
    /// changes nothing here: the write will be refused too.
    async fn hash(&self, path: &str, claim: Claim) -> Result<Result<String, String>> {
        let path = path.to_owned();
        let mut hashing = tokio::task::spawn_blocking(move || sha256(&path));
        loop {
            tokio::select! {
                digest = &mut hashing => {
                    return Ok(digest?.map_err(|error| error.to_string()));
                }
                () = sleep(TTL / 3) => {
                    if let Err(error) = self.queue.renew(claim.item, claim.token).await {
                        eprintln!("{}: item {}: {error}", self.name, claim.item);
                    }
                }
            }
        }
    }

    /// The event and the end of the item, both or neither, and only under a live claim. The event
    /// has no idempotency key on purpose: were an item written twice, there would be two events.
    async fn write(
        &self,
        path: String,
        sha256: Result<String, String>,
        claim: Claim,
    ) -> Result<(), ClientError> {
        let event_type = if sha256.is_ok() { HASHED } else { UNREADABLE };
        let finding = Finding {
            item: claim.item.to_string(),
            path,
            sha256,
            worker: self.name.clone(),
            token: claim.token.to_string(),
        };
        let event_type = Name::parse("event_type", event_type)?;
        let payload = serde_json::to_vec(&finding).expect("text under text keys is JSON");
        let append = Append::new(self.process.clone(), event_type, payload);
        let settle = Settle {
            queue: self.queue.name().clone(),
            item_id: claim.item,
            fencing_token: claim.token,
            outcome: Outcome::Done,
        };
        let live = Precondition::Claim {
            queue: self.queue.name().clone(),
            item_id: claim.item,
            token: claim.token,
        };
        self.client
            .composite(vec![append.into(), settle.into()], vec![live])
            .await?;
        Ok(())
    }
}

/// The claim is over: expired, taken by another, or its item was settled by another.
fn is_stale(error: &ClientError) -> bool {
    matches!(
        error.refusal(),
        Some(
            Refusal::Fenced { .. }
                | Refusal::Expired { .. }
                | Refusal::NotFound {
                    subject: Subject::Item,
                    ..
                }
        )
    )
}

fn sha256(path: &str) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Orders from stdin. A thread reads them: a read of stdin cannot be cancelled.
fn orders() -> mpsc::Receiver<Order> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(order) if sender.blocking_send(order).is_ok() => {}
                _ => return,
            }
        }
    });
    receiver
}

fn say(report: &Report) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
