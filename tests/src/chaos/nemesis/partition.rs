//! Nodes that do not hear each other. Clients hear all of them, so that an old leader is asked too.

use std::ops::Range;

use anyhow::Result;

use super::{last, name};
use crate::chaos::field::Field;
use crate::chaos::net::Link;

/// Long enough for an election on both sides, and for leases to end.
const TIME_MS: Range<u64> = 1_500..5_000;

fn names(field: &Field, nodes: &[usize]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| name(field, *node)).collect();
    names.join(",")
}

pub(super) async fn halves(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let mut nodes: Vec<usize> = (0..field.size()).collect();
    random.shuffle(&mut nodes);
    let (one, other) = nodes.split_at(field.size() / 2);
    field.part(one, other);
    // The smaller side has the clients for itself every other time.
    let alone = random.bool();
    if alone {
        field.part(other, &[field.network.clients()]);
    }
    last(random, TIME_MS).await;
    let clients = if alone { " with the clients" } else { "" };
    Ok(format!(
        "{}{clients} / {}",
        names(field, one),
        names(field, other)
    ))
}

pub(super) async fn leader(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let leader = field.cluster.leader().await?;
    let others: Vec<usize> = (0..field.size()).filter(|node| *node != leader).collect();
    field.part(&[leader], &others);
    last(random, TIME_MS).await;
    Ok(name(field, leader))
}

pub(super) async fn one_way(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let node = match random.bool() {
        true => field.cluster.leader().await?,
        false => field.any(random),
    };
    let hears = random.bool();
    for other in (0..field.size()).filter(|other| *other != node) {
        let (from, to) = if hears { (node, other) } else { (other, node) };
        field.network.links.set(from, to, Link::cut());
    }
    last(random, TIME_MS).await;
    let does = if hears {
        "hears and is not heard"
    } else {
        "is heard and does not hear"
    };
    Ok(format!("{} {does}", name(field, node)))
}

/// With three nodes the ends of a line do not hear each other. With more each hears the two beside
/// it, or two halves have one node in common.
pub(super) async fn ring(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let mut nodes: Vec<usize> = (0..field.size()).collect();
    random.shuffle(&mut nodes);
    let what = if field.size() > 3 && random.bool() {
        let last = field.size() - 1;
        for (at, one) in nodes.iter().enumerate() {
            for (behind, other) in nodes.iter().enumerate().skip(at + 2) {
                if (at, behind) != (0, last) {
                    field.part(&[*one], &[*other]);
                }
            }
        }
        "ring"
    } else {
        let middle = field.size() / 2;
        field.part(&nodes[..middle], &nodes[middle + 1..]);
        "bridge"
    };
    last(random, TIME_MS).await;
    Ok(format!("{what} {}", names(field, &nodes)))
}
