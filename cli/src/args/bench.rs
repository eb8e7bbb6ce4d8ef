//! `quorate bench …`

use clap::{Args, ValueEnum};

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// What to measure
    #[arg(value_enum)]
    pub test: Test,
    /// Tasks that each have one operation in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// How long to measure, after a second of warming up [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: Option<u32>,
    /// How many operations to measure instead, after a tenth as many for warming up
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Distinct keys, processes or queues [default: one a client]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: Option<u32>,
    /// Connections that the clients share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub connections: u32,
    /// Bytes of each payload
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub payload_bytes: u32,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// Claim and release a lease; the two are one operation
    Lock,
    /// Renew leases that were claimed before
    Renew,
    /// Append events to processes that were registered before
    Append,
    /// Push, claim and settle an item; the three are one operation
    Queue,
    /// Read leases that were claimed before, with the consistency asked for
    Read,
}

impl Test {
    /// The word for scripts and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Renew => "renew",
            Self::Append => "append",
            Self::Queue => "queue",
            Self::Read => "read",
        }
    }
}
