//! `quorate top`

use std::time::Duration;

use clap::Args;

use super::duration;

/// Arguments of `top`.
#[derive(Debug, Clone, Args)]
pub struct Top {
    /// Show only leases, locks, processes and queues whose name starts with this
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "PREFIX"
    )]
    pub prefix: String,
    /// How often to ask, at least 100ms
    #[arg(long, default_value = "1s", value_parser = interval, value_name = "DURATION")]
    pub interval: Duration,
}

/// Below it the asking would be most of what is seen.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("{text:?} is too short: give at least 100ms"));
    }
    Ok(interval)
}
