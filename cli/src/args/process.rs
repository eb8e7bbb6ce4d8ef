//! `quorate process …`

use clap::{Args, Subcommand, ValueEnum};
use quorate_statemachine::process::ProcessState;

/// Verbs of process records.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Process records in id order
    List {
        /// Only ids that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Only records in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// One record
    Get {
        /// The process id
        id: String,
    },
    /// The events of a process in order
    Events {
        /// The process id
        id: String,
        /// Only events with a higher sequence
        #[arg(long, default_value_t = 0, value_name = "N")]
        after: u64,
        /// Go on until the process has ended
        #[arg(long)]
        follow: bool,
    },
    /// Append an event
    Append(Append),
    /// Who may use a process: scopes and their sessions
    Grants {
        /// The process id
        id: String,
    },
    /// Wait until a process has ended, and show its record
    Await {
        /// The process id
        id: String,
    },
    /// Make a record; the same definition again is the same record
    Register {
        /// The process id
        id: String,
        /// What it is registered with: JSON or any text, @FILE, or - for stdin
        #[arg(
            long,
            value_name = "JSON|@FILE|-",
            default_value = "",
            hide_default_value = true
        )]
        definition: String,
    },
    /// End a process with an outcome
    Complete {
        /// The process id
        id: String,
        /// How it ended
        #[arg(long, value_enum, default_value_t = FinalState::Succeeded)]
        state: FinalState,
        /// What came of it: JSON or any text, @FILE, or - for stdin
        #[arg(
            long,
            value_name = "JSON|@FILE|-",
            default_value = "",
            hide_default_value = true
        )]
        outcome: String,
        /// Only if the lease KEY is live with this fencing token; may be given again
        #[arg(long, value_name = "KEY=TOKEN", value_parser = fence)]
        fence: Vec<Fence>,
    },
}

/// Arguments of `process append`.
#[derive(Debug, Args)]
pub struct Append {
    /// The process id
    pub id: String,
    /// What kind of event
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: String,
    /// What happened: JSON or any text, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub payload: String,
    /// Idempotency key: an event with the same key is stored once
    #[arg(long)]
    pub key: Option<String>,
    /// Only if the lease KEY is live with this fencing token; may be given again
    #[arg(long, value_name = "KEY=TOKEN", value_parser = fence)]
    pub fence: Vec<Fence>,
}

/// A lease key and the fencing token that must be its live one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The lease key.
    pub key: String,
    /// The token that the caller was granted.
    pub token: u64,
}

/// Reads `KEY=TOKEN`; a key may hold `=` itself.
fn fence(text: &str) -> Result<Fence, String> {
    let expected = || format!("{text:?} is no fence: give KEY=TOKEN, the token a number");
    let (key, token) = text.rsplit_once('=').ok_or_else(expected)?;
    Ok(Fence {
        key: key.to_owned(),
        token: token.parse().map_err(|_| expected())?,
    })
}

/// A state to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Registered and not ended
    Running,
    /// Ended as it should
    Succeeded,
    /// Ended by an error
    Failed,
    /// Ended because somebody asked for it
    Cancelled,
}

/// A state to end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FinalState {
    /// Ended as it should
    Succeeded,
    /// Ended by an error
    Failed,
    /// Ended because somebody asked for it
    Cancelled,
}

impl From<State> for ProcessState {
    fn from(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl From<FinalState> for ProcessState {
    fn from(state: FinalState) -> Self {
        match state {
            FinalState::Succeeded => Self::Succeeded,
            FinalState::Failed => Self::Failed,
            FinalState::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fence_is_split_at_its_last_equals_sign() {
        let fence = |text| super::fence(text).map(|fence| (fence.key, fence.token));
        assert_eq!(fence("jobs/a=7"), Ok(("jobs/a".to_owned(), 7)));
        assert_eq!(fence("a=b=7"), Ok(("a=b".to_owned(), 7)));
        for text in ["a", "a=", "a=x", "a=-1"] {
            assert!(fence(text).is_err(), "{text}");
        }
    }
}
