//! Waiting for a condition: asked again and again until it holds or its time is over.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Nothing that a scenario waits for takes this long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with a quorum takes writes again after this time at the latest, on a busy machine.
pub const RECOVERY_MAX: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers something; fails after `limit` with the last error it gave.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    while Instant::now() < deadline {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        tokio::time::sleep(POLL).await;
    }
    match last {
        Some(error) => bail!("waited {limit:?} for {what}; the last problem was: {error:#}"),
        None => bail!("waited {limit:?} for {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_come_is_named_with_its_last_problem() {
        let limit = Duration::from_millis(50);
        let never = until::<()>("a comet", limit, async || bail!("too cloudy")).await;
        let text = never.expect_err("never").to_string();
        assert!(
            text.contains("a comet") && text.contains("too cloudy"),
            "{text}"
        );
        let mut left = 3;
        let come = until("a countdown", PATIENCE, async || {
            left -= 1;
            Ok((left == 0).then_some(left))
        });
        assert_eq!(come.await.expect("it comes"), 0);
    }
}
