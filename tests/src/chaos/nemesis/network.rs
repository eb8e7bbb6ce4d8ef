//! Bad weather on all links, those of the clients included.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;

use super::last;
use crate::chaos::field::Field;
use crate::chaos::net::Link;

const TIME_MS: Range<u64> = 3_000..7_000;

pub(super) async fn delay(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    // Up to and beyond what an election waits.
    let ms = [10, 40, 75, 150][random.usize(0..4)];
    let link = Link {
        delay: Duration::from_millis(ms),
        jitter: Duration::from_millis(ms * 2 / 3),
        ..Link::default()
    };
    field.weather(link);
    last(random, TIME_MS).await;
    Ok(format!("{ms} ms and up to {} more", ms * 2 / 3))
}

pub(super) async fn loss(field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
    let loss = [10, 50, 150, 300][random.usize(0..4)];
    let link = Link {
        loss,
        duplication: 20,
        reordering: 50,
        jitter: Duration::from_millis(2),
        ..Link::default()
    };
    field.weather(link);
    last(random, TIME_MS).await;
    Ok(format!("{} % lost, 2 % twice, 5 % late", loss / 10))
}
