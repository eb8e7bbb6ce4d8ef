//! `quorate queue …`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use quorate_statemachine::queue::ItemState;

use super::duration;

/// Verbs of queues.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Queues with their counters
    List {
        /// Only names that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// Put an item into a queue
    Push(Push),
    /// Take items to work on; exit code 4 if there are none
    Claim(Claim),
    /// Keep a claim: start its time to live anew
    Renew {
        /// The queue
        name: String,
        /// The item
        item: u64,
        /// Fencing token of the claim
        #[arg(long)]
        token: u64,
        /// Time to live from now on [default: the claim's own]
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        ttl: Option<Duration>,
    },
    /// Say how the work on an item ended; done, unless told otherwise
    Settle(Settle),
    /// Take an item out that nobody works on
    Cancel {
        /// The queue
        name: String,
        /// The item
        item: u64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show items without claiming them: what would be claimed next comes first
    Peek {
        /// The queue
        name: String,
        /// Only items in this state
        #[arg(long, value_enum, default_value_t = State::Ready)]
        state: State,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 10)]
        limit: u64,
    },
    /// Show items that were given up
    Dead {
        /// The queue
        name: String,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// Give a dead item another life
    Requeue {
        /// The queue
        name: String,
        /// The item
        item: u64,
    },
}

/// Arguments of `queue push`.
#[derive(Debug, Args)]
pub struct Push {
    /// The queue; made if need be
    pub name: String,
    /// What to work on: JSON or any text, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub payload: String,
    /// Dedupe key: an item with the same key is in the queue once
    #[arg(long, value_name = "DEDUPE")]
    pub key: Option<String>,
    /// Not to be claimed before this has passed
    #[arg(long, value_parser = duration, default_value = "0s", value_name = "DURATION")]
    pub delay: Duration,
    /// Higher is claimed first
    #[arg(long, default_value_t = 0)]
    pub priority: u8,
    /// Dead after so many claims; 0 for no bound
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub max_attempts: u32,
}

/// Arguments of `queue claim`.
#[derive(Debug, Args)]
pub struct Claim {
    /// The queue
    pub name: String,
    /// Who will work on the items
    #[arg(long, value_name = "ID")]
    pub owner: String,
    /// How long until they become visible to others again
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub ttl: Duration,
    /// Which boot of the owner claims [default: the owner's id]
    #[arg(long, value_name = "ID")]
    pub incarnation: Option<String>,
    /// Items at most
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub max: u32,
    /// Wait so long for an item if there is none
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub wait: Option<Duration>,
}

/// Arguments of `queue settle`.
#[derive(Debug, Args)]
pub struct Settle {
    /// The queue
    pub name: String,
    /// The item
    pub item: u64,
    /// Fencing token of the claim
    #[arg(long)]
    pub token: u64,
    /// Not done: can be claimed again after this
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "dead")]
    pub retry_in: Option<Duration>,
    /// Not done, and given up
    #[arg(long)]
    pub dead: bool,
    /// Why it is not done, for people
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub note: String,
}

/// Which items to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Can be claimed
    Ready,
    /// Will be ready later
    Delayed,
    /// Somebody works on it
    Claimed,
    /// Given up
    Dead,
    /// All of them
    Any,
}

impl State {
    /// The state to ask for, if any.
    pub fn item_state(self) -> Option<ItemState> {
        match self {
            Self::Ready => Some(ItemState::Ready),
            Self::Delayed => Some(ItemState::Delayed),
            Self::Claimed => Some(ItemState::Claimed),
            Self::Dead => Some(ItemState::Dead),
            Self::Any => None,
        }
    }
}
