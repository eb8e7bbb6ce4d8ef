//! The table of commands: each in a file of its own, over a client and a printer.

use clap_complete::aot;
use quorate_statemachine::{Name, Owner};

use crate::args::snapshot::Verb as Snapshot;
use crate::args::{self, Cli, Command, ReadConsistency, Shell};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

mod access;
mod alarm;
mod audit;
mod bench;
mod cert;
mod changes;
mod cluster;
mod confirm;
mod dev;
mod health;
mod lease;
mod lock;
mod made;
mod member;
mod offline;
mod parent;
mod process;
mod progress;
mod queue;
mod recover;
mod rows;
pub mod serve;
mod session;
mod snapshot;
mod status;
mod top;
mod upgrade;
mod verify;
mod version;

pub use lock::attend;

/// Does what the command line asks for. Answers the exit code: 0, or that of the command it ran.
pub fn run(cli: Cli) -> Result<u8, Failure> {
    let printer = Printer::stdout(cli.global.output);
    match &cli.command {
        Command::Completion { shell } => completion(*shell).map(done),
        Command::Version => version::run(printer).map(done),
        Command::Cert(verb) => cert::run(verb, &mut { printer }).map(done),
        Command::Serve(serve) => serve::run(serve).map(done),
        Command::Offline(verb) => {
            let mut printer = printer;
            offline::run(verb, &mut printer).map(done)
        }
        Command::Recover(args) => recover::run(args, printer).map(done),
        Command::Snapshot(Snapshot::Inspect(args)) => snapshot::inspect(args, printer).map(done),
        Command::Snapshot(Snapshot::Restore(args)) => snapshot::restore(args, printer).map(done),
        Command::Bench(_) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(over_network(cli, printer))
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let done = runtime.block_on(over_network(cli, printer));
            // Connections close in the background; nobody waits for that.
            runtime.shutdown_background();
            done
        }
    }
}

fn done((): ()) -> u8 {
    0
}

async fn over_network(cli: Cli, mut printer: Printer) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    let printer = &mut printer;
    if let Command::Lock(verb) = command {
        return lock::run(&connect::client(&global)?, verb, printer).await;
    }
    let ended = match command {
        Command::Dev(dev) => dev::run(&dev, connect::credential(&global)?, printer).await,
        Command::Status => status::run(&connect::admin(&global)?, printer).await,
        Command::Top(top) => top::run(&global, &top).await,
        Command::Alarm(args::alarm::Verb::List) => {
            alarm::run(&connect::admin(&global)?, printer).await
        }
        Command::Health => health::run(&global, printer).await,
        Command::Cluster(verb) => {
            let admin = connect::admin(&global)?.with_timeout(global.change_timeout());
            cluster::run(&admin, verb, printer).await
        }
        Command::Member(verb) => {
            let admin = connect::admin(&global)?.with_timeout(global.change_timeout());
            member::run(&admin, verb, printer).await
        }
        Command::Access(verb) => access::run(&connect::client(&global)?, verb, printer).await,
        Command::Audit(args) => audit::run(&connect::admin(&global)?, args, printer).await,
        Command::Lease(verb) => lease::run(&connect::client(&global)?, verb, printer).await,
        Command::Queue(verb) => queue::run(&connect::client(&global)?, verb, printer).await,
        Command::Process(verb) => process::run(&connect::client(&global)?, verb, printer).await,
        Command::Session(verb) => session::run(&connect::client(&global)?, verb, printer).await,
        Command::Upgrade(verb) => {
            let (client, admin) = (connect::client(&global)?, connect::admin(&global)?);
            upgrade::run(&client, &admin, &verb, printer).await
        }
        Command::Snapshot(Snapshot::Save(args)) => {
            let stale = matches!(global.consistency, ReadConsistency::Stale);
            snapshot::save(&connect::admin(&global)?, stale, &args, printer).await
        }
        Command::Verify => {
            let (client, admin) = (connect::client(&global)?, connect::admin(&global)?);
            verify::run(&client, &admin, printer).await
        }
        Command::Bench(bench) => bench::run(&global, &bench, printer).await,
        Command::Lock(_)
        | Command::Serve(_)
        | Command::Cert(_)
        | Command::Offline(_)
        | Command::Snapshot(_)
        | Command::Recover(_)
        | Command::Completion { .. }
        | Command::Version => {
            unreachable!("they were done before")
        }
    };
    ended.map(done)
}

fn completion(shell: Shell) -> Result<(), Failure> {
    let mut command = args::command();
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut command, "quorate", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}

/// The owner that a command speaks for. Without an incarnation it is the owner's id: the next call
/// of the command line is the same holder.
fn owner(owner_id: &str, incarnation: Option<&str>) -> Result<Owner, Failure> {
    let incarnation = incarnation.unwrap_or(owner_id);
    Ok(Owner::new(
        Name::parse("owner_id", owner_id)?,
        Name::parse("incarnation_id", incarnation)?,
    ))
}

/// The size of the next page of a listing, or none when it has all that was asked for. A `limit`
/// of 0 asks for all.
fn page_limit(limit: u64, so_far: usize) -> Option<u32> {
    let left = match limit {
        0 => return Some(0),
        _ => limit.saturating_sub(so_far as u64),
    };
    (left > 0).then(|| u32::try_from(left).unwrap_or(u32::MAX))
}

/// An answer to another question than the one asked.
fn wrong_answer(asked: &str) -> Failure {
    Failure::new(
        Exit::Error,
        "protocol",
        format!("asked for {asked} and got another answer; use a cluster of a build near this one"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stop_at_the_limit_and_zero_is_no_limit() {
        assert_eq!(page_limit(0, 5_000), Some(0));
        assert_eq!(page_limit(10, 0), Some(10));
        assert_eq!(page_limit(10, 7), Some(3));
        assert_eq!(page_limit(10, 10), None);
    }

    #[test]
    fn an_owner_without_an_incarnation_is_the_same_in_every_call() {
        let owner = owner("me", None).expect("a name");
        assert_eq!(owner.incarnation_id.as_str(), "me");
        let failure = super::owner("", None).expect_err("empty");
        assert_eq!(failure.exit(), Exit::Invalid);
    }
}
