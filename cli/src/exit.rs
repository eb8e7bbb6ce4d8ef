//! How a command ends when it does not end well: the exit code, and the words on stderr.
//!
//! | exit | what | from |
//! |---|---|---|
//! | 1 | error | protocol, wrong cluster, IO, digests that differ |
//! | 2 | usage, invalid argument | `InvalidArgument`; the message states limit and actual |
//! | 3 | not found | `NotFound` |
//! | 4 | contention | a lease or lock held by another, nothing to claim |
//! | 5 | fence or precondition lost | `Fenced`, `Expired`, `Conflict`, `Moved`, `Ended`, `Unsafe` |
//! | 6 | not allowed | `Denied` |
//! | 7 | no leader, unreachable | `Unavailable`, `Stopped`, `TooStale` |
//! | 8 | timed out, outcome unknown | `DeadlineExceeded`, `OutcomeUnknown`, `RequestTooOld` |
//! | 9 | resource exhausted | `Overloaded`, `Exhausted` |
//!
//! `lock run` ends with the exit code of the command it ran. As shells do, it says 126 and 127 of a
//! command that could not be started, and 128 + n of one that signal n ended.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use quorate_client::ClientError;
use quorate_rpc::NodeError;
use quorate_statemachine::{InvalidArgument, Refusal};
use serde::Serialize;

use crate::output::Format;

/// The exit codes of the contract, but for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something that no other code says.
    Error = 1,
    /// Usage or an invalid argument.
    Invalid = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Held by another, or nothing to claim.
    Contention = 4,
    /// A fence or precondition is lost.
    Lost = 5,
    /// Whoever asks may not do it.
    Denied = 6,
    /// No leader, or nobody answers.
    Unreachable = 7,
    /// Whether it was done is unknown.
    Unknown = 8,
    /// A bound is reached for now.
    Exhausted = 9,
    /// The command to run cannot be executed, as shells say it.
    NotExecutable = 126,
    /// There is no such command to run, as shells say it.
    NoCommand = 127,
    /// Whoever read our output has gone, as if killed by SIGPIPE.
    BrokenPipe = 141,
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    #[serde(skip)]
    exit: Exit,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<String>,
}

/// As `-o json` shows it.
#[derive(Serialize)]
struct Shown<'a> {
    error: &'a Failure,
}

impl Failure {
    /// A failure of the command line's own.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code,
            message: message.into(),
            limit: None,
            actual: None,
            retry_after_ms: None,
        }
    }

    /// There is no such thing.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(
            Exit::NotFound,
            "not_found",
            format!("{what} {name:?} does not exist"),
        )
    }

    /// Held by another, or nothing to claim.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Exit::Contention, "busy", message)
    }

    /// A fence or precondition is lost.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(Exit::Lost, "fenced", message)
    }

    /// An argument that cannot be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, "invalid_argument", message)
    }

    /// Something that no other code says.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Error, code, message)
    }

    /// The words for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code.
    #[cfg(test)]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same, and what else there is to say.
    pub fn and(mut self, more: &str) -> Self {
        self.message += &format!("; {more}");
        self
    }

    /// The same with the limit and the actual value, for scripts.
    pub fn bounded(mut self, limit: impl Into<String>, actual: impl Into<String>) -> Self {
        self.limit = Some(limit.into());
        self.actual = Some(actual.into());
        self
    }

    fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms.to_string());
        self
    }

    /// What goes to stderr.
    fn words(&self, format: Format) -> String {
        if format.is_json() {
            return serde_json::to_string(&Shown { error: self })
                .expect("a failure is text under text keys");
        }
        format!("error: {}", self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused(refusal) => of_refusal(refusal),
            ClientError::Node(node) => of_node(node),
            ClientError::Protocol(_) => Self::error(error.code(), error.to_string()),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        of_node(&error)
    }
}

impl From<InvalidArgument> for Failure {
    fn from(invalid: InvalidArgument) -> Self {
        of_refusal(&Refusal::Invalid(invalid))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::BrokenPipe => Exit::BrokenPipe,
            _ => Exit::Error,
        };
        Self::new(exit, "io", error.to_string())
    }
}

fn of_refusal(refusal: &Refusal) -> Failure {
    let exit = match refusal.root() {
        Refusal::Invalid(_) => Exit::Invalid,
        Refusal::NotFound { .. } => Exit::NotFound,
        Refusal::Fenced { .. }
        | Refusal::Expired { .. }
        | Refusal::Conflict { .. }
        | Refusal::Moved { .. }
        | Refusal::Ended { .. } => Exit::Lost,
        Refusal::Exhausted { .. } => Exit::Exhausted,
        Refusal::Denied { .. } => Exit::Denied,
        Refusal::RequestTooOld { .. } => Exit::Unknown,
        // `root` takes the steps off.
        Refusal::Step { .. } => Exit::Error,
    };
    let failure = Failure::new(exit, refusal.code(), refusal.to_string());
    match refusal.root() {
        Refusal::Invalid(invalid) => failure.bounded(&invalid.limit, &invalid.actual),
        Refusal::Exhausted { limit, actual, .. } => {
            failure.bounded(limit.to_string(), actual.to_string())
        }
        _ => failure,
    }
}

fn of_node(error: &NodeError) -> Failure {
    let exit = match error {
        NodeError::Unavailable { .. } | NodeError::Stopped { .. } | NodeError::TooStale { .. } => {
            Exit::Unreachable
        }
        NodeError::Overloaded { .. } => Exit::Exhausted,
        NodeError::DeadlineExceeded { .. } | NodeError::OutcomeUnknown { .. } => Exit::Unknown,
        NodeError::Unsafe { .. } => Exit::Lost,
        NodeError::NotFound { .. } => Exit::NotFound,
        NodeError::Invalid(_) => Exit::Invalid,
        NodeError::WrongCluster { .. } => Exit::Error,
        NodeError::Unauthenticated { .. } => Exit::Denied,
        NodeError::Refused(refusal) => return of_refusal(refusal),
    };
    let failure = Failure::new(exit, error.code(), error.to_string());
    match error {
        NodeError::Unavailable { retry_after_ms, .. } => failure.retry_after(*retry_after_ms),
        NodeError::Overloaded {
            limit,
            actual,
            retry_after_ms,
            ..
        } => failure.bounded(limit, actual).retry_after(*retry_after_ms),
        NodeError::Invalid(invalid) => failure.bounded(&invalid.limit, &invalid.actual),
        _ => failure,
    }
}

/// Says on stderr why, and returns the exit code.
pub fn report(failure: &Failure, format: Format) -> ExitCode {
    if failure.exit != Exit::BrokenPipe {
        // With stderr gone there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}", failure.words(format));
    }
    ExitCode::from(failure.exit as u8)
}

/// What clap says of a command line: help is data, the rest is an invalid argument.
pub fn of_usage(error: &clap::Error) -> ExitCode {
    let wants_json = wants_json(std::env::args(), std::env::var("QUORATE_OUTPUT").ok());
    if error.kind() == ErrorKind::DisplayHelp || !wants_json {
        let _ = error.print();
    } else {
        let message = error.render().to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        let failure = Failure::new(Exit::Invalid, "invalid_argument", message);
        return report(&failure, Format::Json);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Invalid as u8))
}

/// Whether a command line that could not be read asks for JSON.
fn wants_json(line: impl Iterator<Item = String>, env: Option<String>) -> bool {
    let line: Vec<String> = line.take_while(|word| word != "--").collect();
    let given = line
        .iter()
        .enumerate()
        .find_map(|(at, word)| match word.as_str() {
            "-o" | "--output" => line.get(at + 1).map(String::as_str),
            _ => word
                .strip_prefix("--output=")
                .or_else(|| word.strip_prefix("-o")),
        });
    let asked = given.map(str::to_owned).or(env).unwrap_or_default();
    matches!(asked.trim_start_matches('='), "json" | "jsonl")
}

#[cfg(test)]
mod tests {
    use quorate_statemachine::access::{Noun, Verb};
    use quorate_statemachine::{Subject, Timestamp};

    use super::*;

    fn exit_of(error: impl Into<ClientError>) -> (u8, &'static str) {
        let failure = Failure::from(error.into());
        (failure.exit as u8, failure.code)
    }

    fn refusals() -> Vec<(Refusal, u8, &'static str)> {
        let (subject, name) = (Subject::Lease, "k".to_owned());
        let named = || (subject, name.clone());
        let invalid = InvalidArgument::new("ttl_ms", "is out of range", "1 to 2 ms", "0 ms");
        let not_found = |(subject, name)| Refusal::NotFound { subject, name };
        let step = Refusal::Step {
            step: 1,
            refusal: Box::new(not_found(named())),
        };
        let process = "p".to_owned();
        vec![
            (Refusal::Invalid(invalid), 2, "invalid_argument"),
            (not_found(named()), 3, "not_found"),
            (
                Refusal::Fenced {
                    subject,
                    name: name.clone(),
                    presented: 1,
                    current: None,
                },
                5,
                "fenced",
            ),
            (
                Refusal::Expired {
                    subject,
                    name,
                    token: 1,
                    expired_at: Timestamp(2),
                },
                5,
                "expired",
            ),
            (
                Refusal::Ended {
                    process,
                    state: "failed".to_owned(),
                },
                5,
                "ended",
            ),
            (
                Refusal::Exhausted {
                    what: "items".to_owned(),
                    limit: 1,
                    actual: 2,
                },
                9,
                "resource_exhausted",
            ),
            (
                Refusal::RequestTooOld {
                    floor: 2,
                    not_before: 1,
                },
                8,
                "outcome_unknown",
            ),
            (step, 3, "not_found"),
            (denied(), 6, "denied"),
        ]
    }

    fn denied() -> Refusal {
        Refusal::Denied {
            principal: "ci".to_owned(),
            verb: Verb::Write,
            noun: Noun::Lease,
            key: "k".to_owned(),
        }
    }

    /// What loses a comparison.
    fn conflicts() -> Vec<(Refusal, u8, &'static str)> {
        let (subject, name) = (Subject::Session, "s".to_owned());
        let conflict = Refusal::Conflict {
            subject,
            name: name.clone(),
            problem: "p".to_owned(),
        };
        let moved = Refusal::Moved {
            subject,
            name,
            expected: 1,
            actual: 2,
        };
        vec![(conflict, 5, "conflict"), (moved, 5, "conflict")]
    }

    #[test]
    fn every_refusal_has_its_exit_code() {
        for (refusal, exit, code) in refusals().into_iter().chain(conflicts()) {
            assert_eq!(exit_of(refusal.clone()), (exit, code), "{refusal:?}");
        }
    }

    #[test]
    fn every_node_error_has_its_exit_code() {
        let message = "m".to_owned();
        let unavailable = NodeError::Unavailable {
            message: message.clone(),
            retry_after_ms: 7,
            leader: None,
        };
        let overloaded = NodeError::Overloaded {
            what: "proposals".to_owned(),
            limit: "1".to_owned(),
            actual: "2".to_owned(),
            retry_after_ms: 9,
        };
        let wrong = NodeError::WrongCluster {
            expected: "a".to_owned(),
            actual: "b".to_owned(),
        };
        let invalid = InvalidArgument::new("f", "is bad", "1", "2");
        for (error, exit, code) in [
            (unavailable, 7, "unavailable"),
            (overloaded, 9, "resource_exhausted"),
            (
                NodeError::DeadlineExceeded {
                    message: message.clone(),
                },
                8,
                "deadline_exceeded",
            ),
            (
                NodeError::OutcomeUnknown {
                    message: message.clone(),
                },
                8,
                "outcome_unknown",
            ),
            (
                NodeError::Stopped {
                    message: message.clone(),
                },
                7,
                "stopped",
            ),
            (wrong, 1, "wrong_cluster"),
            (
                NodeError::TooStale {
                    message: message.clone(),
                },
                7,
                "too_stale",
            ),
            (
                NodeError::Unsafe {
                    message: message.clone(),
                },
                5,
                "unsafe",
            ),
            (NodeError::NotFound { message }, 3, "not_found"),
            (NodeError::Invalid(invalid), 2, "invalid_argument"),
        ] {
            assert_eq!(exit_of(error.clone()), (exit, code), "{error:?}");
        }
        assert_eq!(
            exit_of(ClientError::Protocol("p".to_owned())),
            (1, "protocol")
        );
    }

    #[test]
    fn who_is_not_let_in_is_told_from_who_may_not() {
        let message = "m".to_owned();
        for (error, code) in [
            (NodeError::Unauthenticated { message }, "unauthenticated"),
            (NodeError::Refused(denied()), "denied"),
        ] {
            assert_eq!(exit_of(error.clone()), (6, code), "{error:?}");
        }
    }

    #[test]
    fn an_error_states_limit_and_actual_in_words_and_in_json() {
        let failure =
            Failure::from(InvalidArgument::check_ttl(90_000_000).expect_err("more than a day"));
        assert_eq!(
            failure.words(Format::Table),
            "error: ttl_ms is out of range: limit 1 to 86400000 ms, actual 90000000 ms"
        );
        assert_eq!(
            failure.words(Format::Json),
            "{\"error\":{\"code\":\"invalid_argument\",\"message\":\"ttl_ms is out of range: limit \
             1 to 86400000 ms, actual 90000000 ms\",\"limit\":\"1 to 86400000 ms\",\"actual\":\
             \"90000000 ms\"}}"
        );
    }

    #[test]
    fn an_error_that_passes_says_when_to_try_again() {
        let error = NodeError::Unavailable {
            message: "no leader".to_owned(),
            retry_after_ms: 250,
            leader: None,
        };
        assert_eq!(
            Failure::from(error).words(Format::Jsonl),
            "{\"error\":{\"code\":\"unavailable\",\"message\":\"unavailable: no leader; not done, \
             try again in 250 ms\",\"retry_after_ms\":\"250\"}}"
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_to_talk_about() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit as u8, 141);
    }

    #[test]
    fn a_bad_command_line_is_told_in_the_format_it_asks_for() {
        let wants = |line: &str, env: Option<&str>| {
            wants_json(line.split(' ').map(str::to_owned), env.map(str::to_owned))
        };
        assert!(wants("quorate lease -o json", None));
        assert!(wants("quorate lease -ojson", None));
        assert!(wants("quorate --output=jsonl lease", None));
        assert!(wants("quorate lease", Some("json")));
        assert!(!wants("quorate lease -o table", Some("json")));
        assert!(!wants("quorate lease -- -o json", None));
        assert!(!wants("quorate lease", None));
    }
}
