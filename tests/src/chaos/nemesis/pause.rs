//! Nodes stand still for longer than a lease lives, and go on as if nothing had been.

use anyhow::Result;

use super::{LONGER_THAN_A_LEASE, last, name};
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
    field.cluster.nodes[node].pause().await?;
    last(random, LONGER_THAN_A_LEASE).await;
    field.cluster.nodes[node].resume()?;
    Ok(name(field, node))
}
