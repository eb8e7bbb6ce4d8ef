//! From a snapshot file to the first member of a new cluster.

use std::io::Read;

use quorate_statemachine::tables;

use super::{DisasterError, Wanted, clock_ms, first_index};
use crate::raft::log_id;
use crate::snapshot_file::{FileError, Header, Reader, Step, Summary};
use crate::storage::{Founder, Identity, NewCluster};

/// What was made.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The first member.
    pub identity: Identity,
    /// Every token of the new cluster is greater.
    pub tokens_above: u64,
    /// What the snapshot is of.
    pub header: Header,
    /// What it holds.
    pub summary: Summary,
}

/// Reads a snapshot file from `input` and makes the directory of a new cluster. Tells `progress`
/// how many bytes were read. Leaves nothing behind when it fails.
pub fn restore(
    wanted: &Wanted,
    input: impl Read,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, DisasterError> {
    let mut reader = Reader::open(input)?;
    let header = reader.header().clone();
    let last = header.covers.last_log_id.unwrap_or_else(|| log_id(0, 0));
    // Before anything is written: a clock that is behind costs no hour.
    let clock = clock_ms();
    let saved_at_ms = header.saved_at_ms.max(header.now_ms);
    let index = first_index(last.index, saved_at_ms, clock, wanted.tokens_above)?;
    #[cfg(feature = "simulation")]
    let index = crate::simulation::first_index(index, last.index);
    let mut made = NewCluster::create(&wanted.data_dir)?;
    let summary = match fill(&mut made, &mut reader, progress) {
        Ok(summary) => summary,
        Err(error) => {
            made.abandon()?;
            return Err(error);
        }
    };
    let identity = wanted.identity(summary.meta.last_node_id);
    let founder = Founder::new(identity, last, index);
    let identity = founder.identity.clone();
    made.finish(&founder)?;
    Ok(Restored {
        identity,
        tokens_above: index,
        header,
        summary,
    })
}

fn fill<R: Read>(
    made: &mut NewCluster,
    reader: &mut Reader<R>,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, DisasterError> {
    let mut failed = None;
    let mut take = |key: &[u8], value: &[u8]| {
        let tag = tables::tag_of(key).unwrap_or_default();
        let known = tables::REGISTRY.iter().any(|(known, _)| *known == tag);
        let taken = match known {
            true => made.row(key, value).map_err(DisasterError::from),
            false => Err(DisasterError::UnknownTable(tag)),
        };
        taken.map_err(|error| {
            failed = Some(error);
            FileError::Io(std::io::Error::other("the row was not taken"))
        })
    };
    let summary = loop {
        match reader.next_rows(&mut take) {
            Ok(Step::Rows) => progress(reader.bytes()),
            Ok(Step::End(summary)) => break Ok(*summary),
            Err(error) => break Err(error),
        }
    };
    match failed {
        Some(error) => Err(error),
        None => Ok(summary?),
    }
}
