//! The log as it is in memory: its ends, its vote, and its newest entries.

use std::collections::VecDeque;

use openraft::EntryPayload;

use super::chain_anchor;
use super::verify::Verified;
use crate::raft::{Entry, LogId, Proposal, Vote};

/// What an entry costs in memory beside its bytes: its place here, and what its bytes are counted
/// with.
const OVERHEAD_BYTES: usize = size_of::<Cached>() + 64;

struct Cached {
    entry: Entry,
    chain: u64,
    bytes: usize,
    /// The batch it is written in: once that is durable, the entry may be dropped.
    batch: u64,
}

/// Ends, vote and newest entries. Entries `first..cached_from()` are only on disk.
pub(super) struct Cache {
    /// Up to here entries are purged.
    pub purged: Option<LogId>,
    /// Chain at the purge mark.
    pub purged_chain: u64,
    /// Index of the first entry that is not purged.
    pub first: u64,
    /// The last entry, or the purge mark if there is none.
    pub last: Option<LogId>,
    /// Chain at `last`.
    pub last_chain: u64,
    /// The vote, once it is durable.
    pub vote: Option<Vote>,
    /// The committed log id.
    pub committed: Option<LogId>,
    /// Whether `committed` is newer than the one on disk.
    pub committed_unwritten: bool,
    entries: VecDeque<Cached>,
    bytes: usize,
    bytes_max: usize,
    batches: u64,
    durable: u64,
}

impl Cache {
    /// A cache of what is on disk; it starts without entries.
    pub fn new(verified: Verified, bytes_max: usize) -> Self {
        let end = verified.last.map_or(0, |last| last.index + 1);
        let first = verified.purged.map_or(0, |purged| purged.index + 1);
        debug_assert!(first <= end);
        Self {
            purged: verified.purged,
            purged_chain: verified.purged_chain,
            first,
            last: verified.last,
            last_chain: verified.last_chain,
            vote: verified.vote,
            committed: verified.committed,
            committed_unwritten: false,
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
            batches: 0,
            durable: 0,
        }
    }

    /// Index behind the last entry.
    pub fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Index of the first cached entry; the end if there is none.
    pub fn cached_from(&self) -> u64 {
        self.end() - self.entries.len() as u64
    }

    /// Starts a batch, whose entries may be dropped once [`Self::set_durable`] has seen it.
    pub fn start_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// Puts one entry behind the last. Its command is kept inside `bytes`, so that sending it to a
    /// follower copies nothing.
    pub fn push(&mut self, mut entry: Entry, bytes: &bytes::Bytes, chain: u64, batch: u64) {
        if let EntryPayload::Normal(proposal) = &mut entry.payload
            && let Some(framed) = Proposal::from_framed(bytes.clone())
        {
            *proposal = framed;
        }
        if self.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.last_chain = chain;
        let bytes = bytes.len() + OVERHEAD_BYTES;
        self.bytes += bytes;
        self.entries.push_back(Cached {
            entry,
            chain,
            bytes,
            batch,
        });
    }

    /// Everything up to `batch` is on disk: drops old entries over the limit.
    pub fn set_durable(&mut self, batch: u64) {
        self.durable = batch;
        while self.bytes > self.bytes_max
            && self
                .entries
                .front()
                .is_some_and(|front| front.batch <= self.durable)
        {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some(front) = self.entries.pop_front() {
            self.bytes -= front.bytes;
        }
    }

    /// Copies cached entries of `from..to` until there is no room; the first fits always.
    pub fn copy(&self, from: u64, to: u64, room: &mut usize, out: &mut Vec<Entry>) {
        let offset = (from - self.cached_from()) as usize;
        for cached in self.entries.range(offset..offset + (to - from) as usize) {
            out.push(cached.entry.clone());
            *room = room.saturating_sub(cached.bytes);
            if *room == 0 {
                break;
            }
        }
    }

    /// Log id and chain of a cached entry.
    pub fn cached(&self, index: u64) -> Option<(LogId, u64)> {
        let offset = index.checked_sub(self.cached_from())?;
        let cached = self.entries.get(offset as usize)?;
        Some((cached.entry.log_id, cached.chain))
    }

    /// Drops all entries behind `last`, whose chain is given.
    pub fn truncate(&mut self, last: Option<LogId>, chain: u64) {
        let end = last.map_or(0, |last| last.index + 1);
        let kept = end.saturating_sub(self.cached_from()) as usize;
        for dropped in self.entries.drain(kept.min(self.entries.len())..) {
            self.bytes -= dropped.bytes;
        }
        self.last = last;
        self.last_chain = chain;
    }

    /// Drops all entries up to `upto`. `chain` is the one of that entry; `None` if the log never
    /// had it.
    pub fn purge(&mut self, upto: LogId, chain: Option<u64>) {
        while self.cached_from() <= upto.index && !self.entries.is_empty() {
            self.drop_front();
        }
        let beyond = upto.index >= self.end();
        self.purged_chain = match chain {
            Some(chain) => chain,
            None if beyond => chain_anchor(&upto),
            // The mark lies before the first entry, which goes on from the chain it had.
            None => self.purged_chain,
        };
        self.first = upto.index + 1;
        self.purged = Some(upto);
        if beyond || self.end() == self.first {
            self.last = Some(upto);
            self.last_chain = self.purged_chain;
        }
    }
}
