//! `quorate lease …`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use quorate_statemachine::lease::SameOwner;

use super::duration;

/// Verbs of leases.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Live leases in key order
    List {
        /// Only keys that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// The live lease of a key; exit code 3 if nobody holds it
    Get {
        /// The lease key
        key: String,
    },
    /// Take a key once, without keeping it alive; prints the holder and exits with 4 if held
    Claim(Claim),
    /// Start the time to live of a held lease anew
    Renew {
        /// The lease key
        key: String,
        /// Fencing token of the grant
        #[arg(long)]
        token: u64,
        /// Time to live from now on [default: the lease's own]
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        ttl: Option<Duration>,
    },
    /// Give a lease back; exit code 0 if released now or before, 5 if lost
    Release {
        /// The lease key
        key: String,
        /// Fencing token of the grant
        #[arg(long)]
        token: u64,
    },
    /// End the grant of another, whoever holds it
    Revoke {
        /// The lease key
        key: String,
        /// Only if this is the live grant's fencing token
        #[arg(long)]
        token: Option<u64>,
        /// Who revokes and why, for the history
        #[arg(long, default_value = "operator")]
        by: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// The ended grants of a key, oldest first, and why each ended
    History {
        /// The lease key
        key: String,
    },
    /// Say in sentences who holds a key, for how long, and why earlier grants ended
    Explain {
        /// The lease key
        key: String,
    },
    /// Print grants and ends of leases as they happen
    Watch {
        /// Only keys that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
}

/// Arguments of `lease claim`.
#[derive(Debug, Args)]
pub struct Claim {
    /// The lease key
    pub key: String,
    /// Who claims: a name that outlives restarts
    #[arg(long, value_name = "ID")]
    pub owner: String,
    /// How long the lease lives without renewal
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub ttl: Duration,
    /// Which boot of the owner claims [default: the owner's id, so that later calls are the same]
    #[arg(long, value_name = "ID")]
    pub incarnation: Option<String>,
    /// What the present holder gets when it claims again
    #[arg(long, value_enum, default_value_t = OwnClaim::Extend)]
    pub same_owner: OwnClaim,
    /// The caller's own proof of this grant: with the same one, a repeated claim is the same claim
    /// [default: minted]
    #[arg(long, value_name = "TOKEN")]
    pub lease_token: Option<String>,
    /// A note shown to others: text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub metadata: Option<String>,
}

/// What an owner gets that claims a key it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OwnClaim {
    /// Its present grant, with the time to live started anew
    Extend,
    /// Nothing: exit code 4, as for anyone else
    Busy,
    /// A new grant with a new fencing token; the old one is superseded
    Fresh,
}

impl From<OwnClaim> for SameOwner {
    fn from(own: OwnClaim) -> Self {
        match own {
            OwnClaim::Extend => Self::Extend,
            OwnClaim::Busy => Self::Busy,
            OwnClaim::Fresh => Self::Fresh,
        }
    }
}
