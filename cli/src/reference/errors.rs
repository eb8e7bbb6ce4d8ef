//! `docs/reference/errors.md`: every refusal and every error of a node, what it means, whether the
//! command was done, and what to do. A new one does not compile until it stands here.

use quorate_client::ClientError;
use quorate_rpc::NodeError;
use quorate_statemachine::access::{Noun, Verb};
use quorate_statemachine::{InvalidArgument, Refusal, Subject, Timestamp};
use tonic::{Code, Status};

use super::{cell, code, header, row, title};
use crate::exit::Failure;

/// What a person needs to know about one kind of error.
struct Kind<E> {
    name: &'static str,
    example: E,
    means: &'static str,
    remedy: &'static str,
}

/// A list with an entry for each arm of a match over all variants: no variant can be missing.
macro_rules! kinds {
    ($list:ident, $of:ident, { $($variant:ident $pattern:tt => $example:expr,
        $means:expr, $remedy:expr;)+ }) => {
        fn $list() -> Vec<Kind<$of>> {
            let _is_complete = |error: &$of| match error {
                $($of::$variant $pattern => {})+
            };
            vec![$(Kind {
                name: stringify!($variant),
                example: $example,
                means: $means,
                remedy: $remedy,
            }),+]
        }
    };
}

fn text(words: &str) -> String {
    words.to_owned()
}

kinds!(refusals, Refusal, {
    Invalid(_) => invalid(),
        "An argument is outside its bounds. Nothing was proposed.",
        "Correct the argument: the message names it, its limit and the value.";
    NotFound {..} => Refusal::NotFound { subject: Subject::Queue, name: text("mail") },
        "There is no such thing.",
        "Look at the name. What ends by itself (a lease, a settled item) may have ended.";
    Fenced {..} => Refusal::Fenced {
            subject: Subject::Lease, name: text("jobs/7"), presented: 41, current: Some(57),
        },
        "The token is not that of the live grant: the caller has lost its right, or never had it.",
        "Stop the work that the token stands for. Claim again if it is still to be done.";
    Expired {..} => Refusal::Expired {
            subject: Subject::Lease, name: text("jobs/7"), token: 41, expired_at: Timestamp(1_000),
        },
        "The grant was the caller's, and its time to live is over.",
        "As with `Fenced`. Renew earlier, or ask for a longer time to live.";
    Conflict {..} => Refusal::Conflict {
            subject: Subject::Process, name: text("p-1"),
            problem: text("event key \"done\" was used before with another payload"),
        },
        "The name was used before with other content, or what was compared is not so.",
        "Read the state. The same key must always carry the same content.";
    Ended {..} => Refusal::Ended { process: text("p-1"), state: text("succeeded") },
        "The process has ended and takes no more events or outcomes.",
        "Nothing is to be done: somebody ended it before. `process get` shows how.";
    Exhausted {..} => Refusal::Exhausted {
            what: text("waiters of lock \"k\""), limit: 10_000, actual: 10_000,
        },
        "A bound of the replicated state is reached.",
        "Try later, when there is less of it; [DATA.md](../DATA.md#limits) has the bounds.";
    RequestTooOld {..} => Refusal::RequestTooOld { floor: 900, not_before: 700 },
        "The answer to this request may have been forgotten. It was not executed now; whether it \
         was the first time is unknown.",
        "Read the state before you repeat it under a new request id.";
    Step {..} => Refusal::Step {
            step: 1,
            refusal: Box::new(Refusal::NotFound { subject: Subject::Lease, name: text("jobs/7") }),
        },
        "A step of a composite was refused, so none of its steps was done. Code and exit code are \
         those of the refusal inside.",
        "What the refusal inside asks for.";
    Moved {..} => Refusal::Moved {
            subject: Subject::Session, name: text("s-1"), expected: 4, actual: 5,
        },
        "A compare-and-set lost: somebody moved on since the caller read.",
        "Read again, decide again, repeat.";
    Denied {..} => Refusal::Denied {
            principal: text("ci"), verb: Verb::Write, noun: Noun::Lease, key: text("jobs/7"),
        },
        "Access is controlled, and whoever asked may not do this. Nothing was changed.",
        "Ask an administrator for a role whose rule covers the key, or use another principal.";
});

kinds!(node_errors, NodeError, {
    Unavailable {..} => NodeError::Unavailable {
            message: text("no leader is known"), retry_after_ms: 100, leader: None,
        },
        "There is no leader that this node can reach.",
        "Clients try again by themselves until their deadline. If it lasts: `quorate status` shows \
         who is there.";
    Overloaded {..} => NodeError::Overloaded {
            what: text("commands in flight"), limit: text("8192"), actual: text("8193"),
            retry_after_ms: 50,
        },
        "Too much is in flight at this node.",
        "Try again after the delay that the error states; send less at a time.";
    DeadlineExceeded {..} => NodeError::DeadlineExceeded { message: text("no answer in 5 s") },
        "The deadline passed before there was an answer.",
        "Repeat the command under its own id (clients do so inside their deadline), or read the \
         state.";
    OutcomeUnknown {..} => NodeError::OutcomeUnknown { message: text("the connection was lost") },
        "The command was sent, and then leadership or the connection was lost.",
        "As with `DeadlineExceeded`.";
    Stopped {..} => NodeError::Stopped { message: text("the node is shutting down") },
        "The node stops, or has stopped because something is broken.",
        "Ask another node; clients do. If nobody stopped it: its log says why.";
    WrongCluster {..} => NodeError::WrongCluster {
            expected: text("cluster 01a9, node 2"), actual: text("cluster 77f0, node 2"),
        },
        "The caller means another cluster, or another node, than the one at this address.",
        "Correct the addresses. Two clusters never mix.";
    TooStale {..} => NodeError::TooStale { message: text("lag 900 ms, at most 500 ms") },
        "This node cannot meet the bound of a stale read.",
        "Ask another node, or read linearizably.";
    Unsafe {..} => NodeError::Unsafe { message: text("1 of 2 voters would be alive") },
        "The step would endanger the cluster, for instance its quorum.",
        "The message says what it would do; `--dry-run` shows the quorum before and after.";
    NotFound {..} => NodeError::NotFound { message: text("there is no member 9") },
        "There is no such member.",
        "`quorate member list` shows those that there are.";
    Invalid(_) => NodeError::Invalid(bounds()),
        "An argument is outside its bounds. Nothing was proposed.",
        "Correct the argument.";
    Unauthenticated {..} => NodeError::Unauthenticated {
            message: text("token 01a9 is proof of nothing"),
        },
        "Access is controlled and the caller has not proved who it is, or it showed a token that \
         was never made, is over or was revoked. Nothing was looked at.",
        "Show a token (`--token-file`) or a certificate of a user; [ACCESS.md](../ACCESS.md).";
    Refused(_) => NodeError::Refused(Refusal::Denied {
            principal: text("ci"), verb: Verb::Read, noun: Noun::Lease, key: text("jobs/"),
        }),
        "The node found by itself what the state says: mostly that a read or a watch is denied.",
        "As with the refusal inside.";
});

fn bounds() -> InvalidArgument {
    InvalidArgument::new(
        "ttl_ms",
        "is out of range",
        "1 to 86400000 ms",
        "90000000 ms",
    )
}

fn invalid() -> Refusal {
    Refusal::Invalid(bounds())
}

pub fn page() -> String {
    let mut page = title("Errors", "`Refusal`, `NodeError` and `cli/src/exit.rs`");
    page += "Two kinds that are never mixed. A **refusal** is an answer of the replicated state: \
             all nodes give the same, it has\nchanged nothing, and trying again says no again \
             until the state is another one. A **node error** says that this\nnode cannot just \
             now, and whether the command may have been done all the same.\n\n\
             That a lease or lock is held by another is neither: contention is an answer (`Busy`), \
             and exit code 4.\n\n\
             With `-o json` the program prints errors on stderr as `{\"error\":{\"code\":…,\
             \"message\":…}}`, with `limit`, `actual` and\n`retry_after_ms` where there are such.\n\
             \n## Refusals\n\n";
    page += &header(&[
        "refusal",
        "code",
        "exit",
        "happened?",
        "means",
        "what to do",
        "reads",
    ]);
    for kind in refusals() {
        let error = ClientError::from(kind.example.clone());
        page += &entry(&kind, &error, None);
    }
    page += "\n## Errors of a node\n\n";
    page += &header(&[
        "error",
        "code",
        "gRPC status",
        "exit",
        "happened?",
        "means",
        "what to do",
        "reads",
    ]);
    for kind in node_errors() {
        let status = Status::from(kind.example.clone()).code();
        page += &entry(
            &kind,
            &ClientError::Node(kind.example.clone()),
            Some(status),
        );
    }
    page += "\n## Of the client alone\n\n\
             `protocol` (exit 1): bytes came back that are no answer to what was asked; client \
             and cluster are of builds that do\nnot know each other. Whether the command was \
             done is unknown.\n";
    page
}

fn entry<E>(kind: &Kind<E>, error: &ClientError, status: Option<Code>) -> String {
    let happened = if error.may_have_happened() {
        "perhaps"
    } else {
        "no"
    };
    let exit = Failure::from(error.clone()).exit() as u8;
    let status = status.map(|status| format!("`{}`", shouted(&format!("{status:?}"))));
    let mut cells = vec![code(kind.name), code(error.code())];
    cells.extend(status);
    cells.extend([
        exit.to_string(),
        happened.to_owned(),
        cell(kind.means),
        cell(kind.remedy),
        cell(&error.to_string()),
    ]);
    row(&cells)
}

/// `ResourceExhausted` as gRPC writes it: `RESOURCE_EXHAUSTED`.
fn shouted(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}
