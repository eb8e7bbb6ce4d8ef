//! `fill ENDPOINT COUNT`: makes rows of all nouns, by the commands of a random log
//! (`statemachine/tests/workload`). `tests/fixtures/write.sh` uses it.

#[path = "../../../statemachine/tests/workload/mod.rs"]
#[allow(dead_code, reason = "the logs are longer than what is sent here")]
mod workload;

use anyhow::{Context, Result};
use quorate_client::Client;
use quorate_statemachine::{Action, Command};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().context("usage: fill ENDPOINT COUNT")?;
    let count = args.next().context("usage: fill ENDPOINT COUNT")?.parse()?;
    let client = Client::connect([endpoint])?.allowing_zero_ttl();
    let (mut done, mut refused) = (0, 0);
    for logged in workload::log(1, count) {
        let Ok(mut command) = Command::decode(logged.entry().command) else {
            continue;
        };
        if matches!(command.action, Action::Cluster(_) | Action::Access(_)) {
            continue;
        }
        command.request = None;
        match client.execute_command(command).await {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{done} done, {refused} refused");
    Ok(())
}
