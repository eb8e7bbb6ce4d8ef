//! Nodes die without a word.

use anyhow::Result;

use super::{last, name};
use crate::chaos::field::Field;

pub(super) async fn leader(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = field.cluster.leader().await?;
    one(field, node, random).await
}

pub(super) async fn follower(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = field.follower(random).await?;
    one(field, node, random).await
}

async fn one(field: &mut Field, node: usize, random: &mut fastrand::Rng) -> Result<String> {
    field.cluster.nodes[node].kill()?;
    last(random, 0..3_000).await;
    Ok(name(field, node))
}

pub(super) async fn all(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    field.cluster.kill_all()?;
    last(random, 0..500).await;
    Ok("all".to_owned())
}
