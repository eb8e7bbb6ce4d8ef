//! Kill -9 at any moment: everything acknowledged is there, and the state fits the log.
//!
//! This test binary starts itself again as a child (`child_process` below), which appends, applies,
//! truncates, snapshots and purges as fast as it can and says what is durable. The parent kills it
//! at some entry, opens its directory, and compares with a model. Kill keeps the page cache, so
//! this shows the order of writes, not the reach of a sync; for power cuts see docs/TESTING.md.
//!
//! `QUORATE_CRASH_ROUNDS=100` makes it long, `QUORATE_CRASH_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftSnapshotBuilder};
use quorate_node::origin::Caller;
use quorate_node::raft::{Entry, Flushed, Proposal, TypeConfig, Vote, log_id};
use quorate_node::storage::{DataDir, Identity, Storage, StorageOptions};
use quorate_statemachine::digest::Digest;
use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::tables::meta_key;
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Command, LeaseToken, Name, Owner, Timestamp};

const DIR: &str = "QUORATE_CRASH_DIR";
const MODE: &str = "QUORATE_CRASH_MODE";

/// Knuth's MMIX generator: a run is its seed's alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The one command that may ever be acknowledged at this index.
fn command(index: u64) -> Vec<u8> {
    Command::from(claim(index)).encode()
}

fn claim(index: u64) -> Claim {
    let name = |text: String| Name::parse("name", text).unwrap();
    let owner = Owner::new(name(format!("w{}", index % 5)), name("boot".to_owned()));
    Claim {
        key: name(format!("k{}", index * 7 % 300)),
        owner,
        lease_token: LeaseToken::parse(format!("t{index}")).unwrap(),
        ttl_ms: index * 13 % 500,
        same_owner: SameOwner::Fresh,
        metadata: vec![index as u8; (index % 200) as usize],
    }
}

fn entry(term: u64, index: u64, command: &[u8]) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal::new(
            Timestamp(index),
            &Caller::Anonymous.into(),
            command,
        )),
    }
}

fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range
        .map(|index| entry(term, index, &command(index)))
        .collect()
}

fn is_right(entry: &Entry) -> bool {
    let index = entry.log_id.index;
    match &entry.payload {
        EntryPayload::Normal(proposal) => {
            proposal.command() == command(index) && proposal.proposed_at().0 == index
        }
        _ => false,
    }
}

fn open(path: &Path) -> (DataDir, Storage) {
    let mut dir = DataDir::open(path).unwrap();
    dir.set_identity(Identity {
        cluster_id: "crash".to_owned(),
        node_id: 1,
        name: "n1".to_owned(),
    })
    .unwrap();
    // So small that rows are written and flushed between any two kills, not only by snapshots.
    let mut options = StorageOptions::default();
    options.state.pending_bytes = 8 << 10;
    options.state.write_buffer_bytes = 64 << 10;
    let storage = Storage::open(&dir, &options, Arc::new(|_| ())).unwrap();
    (dir, storage)
}

async fn append(storage: &mut Storage, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, wait) = TypeConfig::oneshot();
    storage.log.append(entries, Flushed::signal(done)).await?;
    wait.await.unwrap()
}

async fn apply(storage: &mut Storage, entries: Vec<Entry>) {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    storage
        .state
        .apply(futures::stream::iter(items))
        .await
        .unwrap();
}

fn end(storage: &Storage) -> u64 {
    storage.log.last_log_id().map_or(1, |last| last.index + 1)
}

/// Drops a tail that was never acknowledged, and applies what the state lacks. Gives the end.
async fn recover(storage: &mut Storage) -> u64 {
    let first = storage.log.purged().map_or(0, |purged| purged.index + 1);
    let all = storage
        .log
        .reader()
        .try_get_log_entries(first..end(storage))
        .await
        .unwrap();
    let right = all
        .iter()
        .take_while(|entry| entry.log_id.index == 0 || is_right(entry))
        .count();
    if right < all.len() {
        let last = right.checked_sub(1).map(|last| all[last].log_id);
        storage
            .log
            .truncate_after(last.or(storage.log.purged()))
            .await
            .unwrap();
    }
    let applied = storage.state.reader().applied().map_or(0, |id| id.index);
    let missing = all
        .into_iter()
        .take(right)
        .filter(|entry| entry.log_id.index > applied);
    apply(storage, missing.collect()).await;
    end(storage)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The child: runs only when the parent has named a directory.
#[tokio::test]
async fn child_process() {
    let Ok(path) = std::env::var(DIR) else {
        return;
    };
    let (_dir, mut storage) = open(Path::new(&path));
    match std::env::var(MODE).unwrap().as_str() {
        "limit" => write_to_the_limit(&mut storage).await,
        "state limit" => apply_to_the_limit(&mut storage).await,
        seed => work(&mut storage, Random(seed.parse().unwrap())).await,
    }
}

async fn work(storage: &mut Storage, mut random: Random) -> ! {
    let mut next = recover(storage).await;
    let last_term = storage
        .log
        .last_log_id()
        .map_or(1, |last| last.leader_id.term);
    let mut term = last_term + 1;
    if next == 1 {
        append(storage, vec![entry(0, 0, b"")]).await.unwrap();
    }
    loop {
        let upto = next + 1 + random.below(64);
        append(storage, entries(term, next..upto)).await.unwrap();
        say(&format!("acked {}", upto - 1));
        let last = log_id(term, upto - 1);
        storage.log.save_committed(Some(last)).await.unwrap();
        apply(storage, entries(term, next..upto)).await;
        next = upto;
        match random.below(40) {
            0 => {
                term += 1;
                storage.log.save_vote(&Vote::new(term, 1)).await.unwrap();
                say(&format!("vote {term}"));
            }
            1 => {
                let wrong = (next..next + 20).map(|index| entry(term, index, b"wrong"));
                append(storage, wrong.collect()).await.unwrap();
                storage.log.truncate_after(Some(last)).await.unwrap();
                term += 1;
            }
            2 => {
                let mut builder = storage.state.get_snapshot_builder().await;
                let meta = builder.build_snapshot().await.unwrap().meta;
                let covered = meta.last_log_id.unwrap();
                let upto = covered.index.saturating_sub(100);
                let kept = storage
                    .log
                    .reader()
                    .try_get_log_entries(upto..upto + 1)
                    .await
                    .unwrap();
                if let Some(entry) = kept.first() {
                    storage.log.purge(entry.log_id).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

/// What the parent read from the child.
#[derive(Debug, Default)]
struct Heard {
    acked: u64,
    vote: u64,
    failed: Option<String>,
    lines: u64,
}

impl Heard {
    fn take(&mut self, line: &str) {
        // The test harness prints on the same pipe, and in front of the first line.
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [.., "acked", index] => self.acked = index.parse().unwrap(),
            [.., "vote", term] => self.vote = term.parse().unwrap(),
            ["failed", ..] => self.failed = Some(line.to_owned()),
            _ => return,
        }
        self.lines += 1;
    }
}

/// Runs a child until it has said `lines_max` things, and kills it.
fn run_child(mut process: Process, dir: &Path, mode: &str, lines_max: u64) -> Heard {
    process.args(["child_process", "--exact", "--nocapture"]);
    process.env(DIR, dir).env(MODE, mode).stdout(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = Heard::default();
    while heard.lines < lines_max
        && let Some(line) = lines.next()
    {
        heard.take(&line.unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What is in the pipe was said before the kill; a line without its end was not.
    for line in lines {
        heard.take(&line.unwrap());
    }
    heard
}

/// The state after every right command up to an index.
struct Model {
    view: MemoryView,
    next: u64,
}

impl Model {
    fn digest(&mut self, end: u64) -> Digest {
        for index in self.next..end {
            let entry = quorate_statemachine::Entry {
                index,
                proposed_at: Timestamp(index),
                command: &command(index),
                principal: quorate_statemachine::Principal::Cluster,
            };
            let applied = quorate_statemachine::apply(&self.view, entry).unwrap();
            self.view.commit(applied.changes);
        }
        self.next = end;
        read(&self.view, &meta_key())
            .unwrap()
            .unwrap_or_default()
            .digest
    }
}

async fn check(dir: &Path, heard: &Heard, model: &mut Model) {
    let (_dir, mut storage) = open(dir);
    let vote = storage.log.reader().read_vote().await.unwrap();
    assert!(
        vote.map_or(0, |vote| vote.leader_id.term) >= heard.vote,
        "{vote:?} {heard:?}"
    );
    let reader = storage.state.reader();
    reader.verify().unwrap();
    let applied = reader.applied().map_or(0, |applied| applied.index);
    assert!(
        applied < end(&storage),
        "{applied} is applied, the log ends at {}",
        end(&storage)
    );
    let end = recover(&mut storage).await;
    assert!(end > heard.acked, "the log ends at {end}, {heard:?}");
    assert_eq!(reader.applied().map_or(0, |applied| applied.index), end - 1);
    assert_eq!(reader.verify().unwrap(), model.digest(end));
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_killed_node_has_everything_that_it_acknowledged() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let clock = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    let seed = number("QUORATE_CRASH_SEED", clock);
    println!("QUORATE_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let temp = tempfile::tempdir().unwrap();
    let mut model = Model {
        view: MemoryView::default(),
        next: 1,
    };
    for round in 0..number("QUORATE_CRASH_ROUNDS", 10) {
        let process = Process::new(std::env::current_exe().unwrap());
        let (mode, lines) = (
            random.below(u64::MAX >> 34).to_string(),
            1 + random.below(400),
        );
        let heard = run_child(process, temp.path(), &mode, lines);
        assert!(
            heard.lines >= lines,
            "round {round}: the child ended by itself, {heard:?}"
        );
        check(temp.path(), &heard, &mut model).await;
    }
}

/// Appends until the disk takes no more, then checks that the store refuses everything.
async fn write_to_the_limit(storage: &mut Storage) {
    let failure = storage.log.failure();
    append(storage, vec![entry(0, 0, b"")]).await.unwrap();
    for index in 1..100_000 {
        let Err(error) = append(storage, entries(1, index..index + 1)).await else {
            say(&format!("acked {index}"));
            continue;
        };
        assert!(failure.borrow().is_some());
        append(storage, entries(1, index + 1..index + 2))
            .await
            .unwrap_err();
        storage.log.save_vote(&Vote::new(2, 1)).await.unwrap_err();
        storage.log.truncate_after(None).await.unwrap_err();
        storage.log.purge(log_id(1, 1)).await.unwrap_err();
        say(&format!("failed {error}"));
        return;
    }
    panic!("the limit was never reached");
}

/// The state alone, with rows that cannot be compressed below the limit.
async fn apply_to_the_limit(storage: &mut Storage) {
    let mut random = Random(1);
    for index in 1..100_000 {
        let mut claim = claim(index);
        claim.metadata = (0..200).map(|_| random.below(256) as u8).collect();
        let entry = entry(1, index, &Command::from(claim).encode());
        let items = futures::stream::iter([Ok((entry, None))]);
        if let Err(error) = storage.state.apply(items).await {
            let again = futures::stream::iter([Ok((self::entry(1, index + 1, b""), None))]);
            storage.state.apply(again).await.unwrap_err();
            say(&format!("failed {error}"));
            return;
        }
    }
    panic!("the limit was never reached");
}

/// A process in which no file may grow beyond so many KiB. The signal that says so is ignored:
/// writes fail.
fn limited(kib: u32) -> Process {
    let mut process = Process::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    process
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap());
    process
}

#[tokio::test]
async fn rows_that_cannot_be_written_stop_the_store_and_leave_an_older_state_whole() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let heard = run_child(limited(32), temp.path(), "state limit", u64::MAX);
    let failed = heard.failed.as_ref().expect("the child reached the limit");
    // The entry that met the failure is told of it; one that came later, that there was one.
    let told = ["cannot write to", "the store has stopped"];
    assert!(told.iter().any(|words| failed.contains(words)), "{failed}");
    let (_dir, storage) = open(temp.path());
    storage.state.reader().verify().unwrap();
}

#[tokio::test]
async fn a_write_that_fails_stops_the_store_and_loses_nothing_acknowledged() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let heard = run_child(limited(1024), temp.path(), "limit", u64::MAX);
    let failed = heard.failed.as_ref().expect("the child reached the limit");
    assert!(failed.contains("the store has stopped"), "{failed}");
    assert!(heard.acked > 100, "{heard:?}");
    let (_dir, storage) = open(temp.path());
    let all = storage
        .log
        .reader()
        .try_get_log_entries(1..heard.acked + 1)
        .await
        .unwrap();
    assert_eq!(all.len() as u64, heard.acked);
    assert!(all.iter().all(is_right));
}
