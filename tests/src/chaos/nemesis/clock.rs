//! Wall clocks jump, on one machine or on all, and back again.

use anyhow::Result;

use super::{last, name};
use crate::chaos::control::Knob;
use crate::chaos::field::Field;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
const YEAR: i64 = 365 * 24 * HOUR;

pub(super) async fn jump(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let jumps = [2 * SECOND, HOUR, 10 * YEAR];
    let mut told = Vec::new();
    for _ in 0..random.usize(1..4) {
        let leader = field.cluster.leader().await?;
        let node = if random.bool() {
            leader
        } else {
            field.any(random)
        };
        let by = jumps[random.usize(0..jumps.len())] * if random.bool() { 1 } else { -1 };
        field.set(node, Knob::WallOffset, by)?;
        told.push(format!("{} {:+} s", name(field, node), by / SECOND));
        last(random, 500..2_000).await;
    }
    Ok(told.join(", "))
}
