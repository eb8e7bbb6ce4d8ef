//! Disks that fail, are slow, or have no room.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{last, name};
use crate::chaos::control::Knob;
use crate::chaos::field::Field;

/// A node under load syncs many times a second, and stops at the first that fails.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn sync_error(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = field.any(random);
    field.set(node, Knob::SyncErrors, 1)?;
    stopped(field, node).await?;
    last(random, 0..1_000).await;
    Ok(name(field, node))
}

/// The cluster goes on without it, and so it must not go on by itself: what a failed write has left
/// on the disk nobody knows.
async fn stopped(field: &mut Field, node: usize) -> Result<()> {
    let name = name(field, node);
    let stopped = field.has_stopped(node, STOPS_WITHIN).await;
    stopped.with_context(|| format!("{name} goes on after its disk failed"))
}

pub(super) async fn slow(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = match random.bool() {
        true => field.cluster.leader().await?,
        false => field.any(random),
    };
    let ms = [20, 200, 1_000][random.usize(0..3)];
    field.set(node, Knob::SyncDelay, ms)?;
    last(random, 3_000..6_000).await;
    Ok(format!("{}, {ms} ms a sync", name(field, node)))
}

pub(super) async fn full(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = field.any(random);
    field.set(node, Knob::Full, 1)?;
    stopped(field, node).await?;
    // Started while the disk is still full it may stop again, and must not harm its directory.
    field.cluster.nodes[node].start()?;
    last(random, 500..1_500).await;
    let again = field.cluster.nodes[node].ended()?.is_some();
    field.set(node, Knob::Full, 0)?;
    if !again {
        field.cluster.nodes[node].kill()?;
    }
    Ok(format!(
        "{}, started again in vain: {again}",
        name(field, node)
    ))
}
