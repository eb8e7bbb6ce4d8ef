//! `quorate lock …`

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::duration;
use crate::output::Format;

/// Verbs of locks.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command while a lock is held, waiting for the lock first
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Locks that are held or waited for: holder, token, time left, waiters
    List {
        /// Only keys that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Locks at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// One lock; exit code 3 if nobody holds it or waits
    Get {
        /// The lock key
        key: String,
    },
    /// Those who wait for a lock, first in line first
    Waiters {
        /// The lock key
        key: String,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// End a wait, and no hold; exit code 5 if it was over before, as when the lock was granted
    CancelWait {
        /// The lock key
        key: String,
        /// Which acquisition, as `lock waiters` shows it
        #[arg(value_name = "WAITER")]
        waiter: String,
    },
    /// Give a hold back; exit code 5 if its token is not live
    Release {
        /// The lock key
        key: String,
        /// Fencing token of the grant
        #[arg(long)]
        token: u64,
    },
    /// End the holds of others, whoever has them; the next in line is granted the lock
    Revoke {
        /// The lock key
        key: String,
        /// Only the hold with this fencing token
        #[arg(long)]
        token: Option<u64>,
        /// Who revokes and why: the holder is told
        #[arg(long, default_value = "operator")]
        by: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show who waits for whom, and what can never go on
    Graph {
        /// Only locks whose key starts with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Print grants and ends of locks as they happen
    Watch {
        /// Only keys that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
}

const RUN_HELP: &str = "\
CMD runs with its own stdin, stdout and stderr, in the foreground if quorate is, and sees
  QUORATE_LOCK_KEY       the lock
  QUORATE_FENCING_TOKEN  orders this grant among all grants: send it along with every write
  QUORATE_LOCK_OWNER     who holds it: a `quorate lock run` inside CMD asks in the same name, so
                         that runs which wait for each other are found (exit code 1)

Without --wait it waits as long as it takes, in a fair queue.

If the lock is lost, CMD and all that it started get SIGTERM, and SIGKILL after --kill-after; so do
they if quorate itself is killed. Between the loss and their end another may hold the lock: the
fencing token tells the two apart. A run that is stopped (Ctrl-Z) for longer than --ttl loses the
lock too.
SIGINT, SIGTERM, SIGHUP and SIGQUIT go on to CMD, and quorate waits for it. What CMD leaves running
when it ends by itself goes on without the lock.

A CMD that ends with 4 or 5 itself looks like one of ours: stderr tells.

Exit codes:
  CMD's own, or 128 + n if signal n ended it
  4         the lock was not to be had: held, and the wait ran out or was cancelled
  5         the lock was lost while CMD ran
  126, 127  CMD cannot be executed; there is no CMD
  1         waiting would never end: a deadlock; the circle is named
  others    as always (quorate --help)";

/// Arguments of `lock run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The lock key
    pub key: String,
    /// How long the lock lives without renewal, as when this machine dies
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "10s")]
    pub ttl: Duration,
    /// How long to wait for the lock; 0s not at all [default: as long as it takes]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub wait: Option<Duration>,
    /// Who holds, for others to see [default: the run around this one, or HOST:PID]
    #[arg(long, value_name = "ID")]
    pub owner: Option<String>,
    /// Hold it together with others that hold it shared
    #[arg(long)]
    pub shared: bool,
    /// Hold one of so many permits; all who use the lock must give the same number
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "shared",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub permits: Option<u32>,
    /// For how long nobody gets the lock after this holder died, as time for its work to fail
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "0s")]
    pub delay: Duration,
    /// How long CMD may take to end when the lock is lost, before it is killed
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "5s")]
    pub kill_after: Duration,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// The command line of the process that `lock run` starts. It is no verb: it stands in no help and
/// no completion.
#[derive(Debug, Parser)]
#[command(name = Attend::NAME)]
pub struct Attend {
    /// The process whose end is to end the command
    #[arg(long, value_name = "PID")]
    pub parent: i32,
    /// How long the command may take to end before it is killed
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub kill_after: Duration,
    /// How to print errors
    #[arg(long, value_enum)]
    pub output: Format,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl Attend {
    /// The first word of its command line.
    pub const NAME: &str = "lock-attendant";

    /// Reads the process's own command line, if it is one of these.
    pub fn asked() -> Option<Result<Self, clap::Error>> {
        let line: Vec<OsString> = std::env::args_os().skip(1).collect();
        let is_asked = line.first().is_some_and(|word| word == Self::NAME);
        is_asked.then(|| Self::try_parse_from(line))
    }
}
