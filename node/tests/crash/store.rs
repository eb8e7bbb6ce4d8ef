//! What is written, and the stores that it is written to.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use quorate_node::origin::Caller;
use quorate_node::raft::{Entry, Flushed, Proposal, TypeConfig, log_id};
use quorate_node::storage::{DataDir, Identity, Storage, StorageOptions};
use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::{Command, LeaseToken, Name, Owner, Timestamp};

/// Knuth's MMIX generator: a run is its seed's alone.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The one command that may ever be acknowledged at this index.
pub fn command(index: u64) -> Vec<u8> {
    Command::from(claim(index)).encode()
}

pub fn claim(index: u64) -> Claim {
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

pub fn entry(term: u64, index: u64, command: &[u8]) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal::new(
            Timestamp(index),
            &Caller::Anonymous.into(),
            command,
        )),
    }
}

pub fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range
        .map(|index| entry(term, index, &command(index)))
        .collect()
}

pub fn is_right(entry: &Entry) -> bool {
    let index = entry.log_id.index;
    match &entry.payload {
        EntryPayload::Normal(proposal) => {
            proposal.command() == command(index) && proposal.proposed_at().0 == index
        }
        _ => false,
    }
}

pub fn open(path: &Path) -> (DataDir, Storage) {
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

pub async fn append(storage: &mut Storage, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, wait) = TypeConfig::oneshot();
    storage.log.append(entries, Flushed::signal(done)).await?;
    wait.await.unwrap()
}

pub async fn apply(storage: &mut Storage, entries: Vec<Entry>) {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    storage
        .state
        .apply(futures::stream::iter(items))
        .await
        .unwrap();
}

pub fn end(storage: &Storage) -> u64 {
    storage.log.last_log_id().map_or(1, |last| last.index + 1)
}

/// Drops a tail that was never acknowledged, and applies what the state lacks. Gives the end.
pub async fn recover(storage: &mut Storage) -> u64 {
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
