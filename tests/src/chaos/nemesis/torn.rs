//! A killed node whose log ends too early: it starts with all that it has acknowledged, or not at
//! all; then another member takes its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{last, name};
use crate::chaos::field::Field;
use crate::wait::until;

/// A node has opened its directory by then, on a busy machine.
const OPENS_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn tail(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    // So that the others are a quorum for everything that was acknowledged.
    field.settled().await?;
    let node = field.any(random);
    field.cluster.nodes[node].kill()?;
    let log = newest_log(field.cluster.nodes[node].data_dir())?;
    let length = std::fs::metadata(&log)?.len();
    // A few bytes, or far more: a recycled file has old bytes behind its end.
    let most = if random.bool() {
        length
    } else {
        length.min(20_000)
    };
    let cut = random.u64(1..=most.max(1));
    let file = std::fs::File::options().write(true).open(&log)?;
    file.set_len(length.saturating_sub(cut))?;
    drop(file);
    last(random, 0..500).await;
    field.cluster.nodes[node].start()?;
    let began = opened(field, node).await?;
    if !began {
        field.replace(node).await.context("it was not replaced")?;
    }
    let does = if began {
        "starts"
    } else {
        "refuses and is replaced"
    };
    Ok(format!(
        "{}, {cut} of {length} bytes: {does}",
        name(field, node)
    ))
}

/// Whether the node serves, or has refused to start.
async fn opened(field: &mut Field, node: usize) -> Result<bool> {
    let cluster = &mut field.cluster;
    until("the node to serve or to end", OPENS_WITHIN, async || {
        if cluster.nodes[node].ended()?.is_some() {
            return Ok(Some(false));
        }
        cluster.status(node).await?;
        Ok(Some(true))
    })
    .await
}

/// The write-ahead log of the log's database that was written last.
fn newest_log(data_dir: &Path) -> Result<PathBuf> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(data_dir.join("log"))? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|it| it.to_str()?.parse().ok());
        let is_log = path.extension().is_some_and(|it| it == "log");
        let (true, Some(number)) = (is_log, number) else {
            continue;
        };
        if newest.as_ref().is_none_or(|(highest, _)| number > *highest) {
            newest = Some((number, path));
        }
    }
    let found = newest.map(|(_, path)| path);
    found.with_context(|| format!("{} has no write-ahead log", data_dir.display()))
}
