//! Members go and come, by what an operator would do.

use anyhow::{Context, Result};

use super::{last, name};
use crate::chaos::field::Field;
use crate::wait::{PATIENCE, until};

/// A node loses its directory: what comes back has never voted, and is another member.
pub(super) async fn wiped(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    field.settled().await?;
    let node = field.any(random);
    field.cluster.nodes[node].kill()?;
    last(random, 0..1_000).await;
    field.replace(node).await?;
    Ok(name(field, node))
}

/// A member is taken out while it runs, and comes back blank.
pub(super) async fn change(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    field.settled().await?;
    let node = field.any(random);
    let id = field.id_of(node).await?;
    until("the member to be taken out", PATIENCE, async || {
        let admin = field.cluster.admin()?;
        let removed = admin.remove_member(id, false).await;
        // A try that was answered by nobody may have been done.
        let members = admin.members(false).await?.members;
        let gone = members.iter().all(|member| member.id != id);
        match removed {
            _ if gone => Ok(Some(())),
            Ok(_) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    last(random, 0..1_500).await;
    field.cluster.nodes[node].kill()?;
    std::fs::remove_dir_all(field.cluster.nodes[node].data_dir())?;
    field.cluster.nodes[node].start()?;
    field.cluster.ready(node).await?;
    field
        .take_in(node, 0)
        .await
        .context("it was not taken in")?;
    Ok(format!("{}, was {id}", name(field, node)))
}

pub(super) async fn transfer(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let mut told = Vec::new();
    for _ in 0..random.usize(1..4) {
        let node = field.follower(random).await?;
        let id = field.id_of(node).await?;
        // It may be refused, as by a member that is behind; that is an answer.
        let done = field
            .cluster
            .admin()?
            .transfer_leader(Some(id), false)
            .await;
        told.push(match done {
            Ok(_) => format!("to {}", name(field, node)),
            Err(error) => format!("not to {}: {}", name(field, node), error.code()),
        });
        last(random, 200..1_000).await;
    }
    Ok(told.join(", "))
}
