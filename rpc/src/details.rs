//! The details of a gRPC status: what programs in any language read instead of the text.
//!
//! Every status that a node makes carries a `google.rpc.ErrorInfo` with the domain `quorate`, a
//! stable reason, and the facts as metadata; beside it what the reason needs: `RetryInfo`,
//! `PreconditionFailure`, `QuotaFailure`, `BadRequest`, `ResourceInfo`. The table is in
//! `docs/API.md`.

use std::collections::HashMap;
use std::time::Duration;

use quorate_statemachine::{InvalidArgument, Refusal, Subject};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{NodeError, v1};

/// The domain of every reason.
pub const DOMAIN: &str = "quorate";

/// What a caller is told to wait while a bound of the replicated state is reached.
const EXHAUSTED_RETRY: Duration = Duration::from_secs(1);

/// The type of the detail that carries a [`NodeError`] from node to client without a loss.
const NODE_ERROR: &str = "type.googleapis.com/quorate.v1.NodeError";

/// The details of a reason, `conflict` or another stable word, with its facts.
fn details(word: &str, facts: impl IntoIterator<Item = (&'static str, String)>) -> ErrorDetails {
    let facts = facts.into_iter();
    let facts: HashMap<_, _> = facts
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    ErrorDetails::with_error_info(word.to_uppercase(), DOMAIN, facts)
}

/// The status of a refusal.
#[must_use]
pub fn refused(refusal: &Refusal) -> Status {
    let (root, text) = (refusal.root(), refusal.to_string());
    let mut details = details(root.code(), facts(root));
    match root {
        Refusal::Invalid(invalid) => {
            details.add_bad_request_violation(&invalid.field, invalid.to_string());
        }
        Refusal::NotFound { subject, name } => {
            details.set_resource_info(subject.as_str(), name, "", &text);
        }
        Refusal::Exhausted { what, .. } => {
            details.add_quota_failure_violation(what, &text);
            details.set_retry_info(Some(EXHAUSTED_RETRY));
        }
        Refusal::Fenced { subject, name, .. } | Refusal::Expired { subject, name, .. } => {
            let (kind, subject) = (root.code().to_uppercase(), format!("{subject}/{name}"));
            details.add_precondition_failure_violation(kind, subject, &text);
        }
        Refusal::Ended { process, .. } => {
            let (kind, subject) = (root.code().to_uppercase(), format!("process/{process}"));
            details.add_precondition_failure_violation(kind, subject, &text);
        }
        Refusal::RequestTooOld { .. }
        | Refusal::Conflict { .. }
        | Refusal::Moved { .. }
        | Refusal::Denied { .. }
        | Refusal::Step { .. } => {}
    }
    Status::with_error_details(code(root), text, details)
}

fn code(root: &Refusal) -> Code {
    match root {
        Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::NotFound { .. } => Code::NotFound,
        Refusal::Exhausted { .. } => Code::ResourceExhausted,
        Refusal::RequestTooOld { .. } => Code::Unknown,
        Refusal::Conflict { .. } | Refusal::Moved { .. } => Code::Aborted,
        Refusal::Denied { .. } => Code::PermissionDenied,
        Refusal::Fenced { .. }
        | Refusal::Expired { .. }
        | Refusal::Ended { .. }
        | Refusal::Step { .. } => Code::FailedPrecondition,
    }
}

/// What a program may want to know of a refusal, without reading its text.
fn facts(root: &Refusal) -> Vec<(&'static str, String)> {
    let subject = |subject: &Subject| ("subject", subject.to_string());
    let text = |fact: &'static str, text: &String| (fact, text.clone());
    let number = |fact: &'static str, number: u64| (fact, number.to_string());
    match root {
        Refusal::Invalid(invalid) => invalid_facts(invalid).into(),
        Refusal::NotFound { subject: of, name }
        | Refusal::Conflict {
            subject: of, name, ..
        } => {
            vec![subject(of), text("name", name)]
        }
        Refusal::Fenced {
            subject: of,
            name,
            presented,
            current,
        } => vec![
            subject(of),
            text("name", name),
            number("presented", *presented),
            (
                "current",
                current.map_or(String::new(), |it| it.to_string()),
            ),
        ],
        Refusal::Expired {
            subject: of,
            name,
            token,
            expired_at,
        } => vec![
            subject(of),
            text("name", name),
            number("token", *token),
            number("expired_at_ms", expired_at.0),
        ],
        Refusal::Moved {
            subject: of,
            name,
            expected,
            actual,
        } => vec![
            subject(of),
            text("name", name),
            number("expected", *expected),
            number("actual", *actual),
        ],
        Refusal::Exhausted { limit, actual, .. } => {
            vec![number("limit", *limit), number("actual", *actual)]
        }
        Refusal::RequestTooOld { floor, not_before } => {
            vec![number("floor", *floor), number("not_before", *not_before)]
        }
        Refusal::Ended { process, state } => vec![text("name", process), text("state", state)],
        Refusal::Denied {
            principal,
            verb,
            noun,
            key,
        } => vec![
            text("principal", principal),
            ("verb", verb.to_string()),
            ("noun", noun.to_string()),
            text("key", key),
        ],
        Refusal::Step { .. } => Vec::new(),
    }
}

fn invalid_facts(invalid: &InvalidArgument) -> [(&'static str, String); 3] {
    [
        ("field", invalid.field.clone()),
        ("limit", invalid.limit.clone()),
        ("actual", invalid.actual.clone()),
    ]
}

fn invalid_details(word: &str, invalid: &InvalidArgument) -> ErrorDetails {
    let mut details = details(word, invalid_facts(invalid));
    details.add_bad_request_violation(&invalid.field, invalid.to_string());
    details
}

/// The status of a node that cannot just now.
pub(crate) fn unable(code: Code, error: NodeError) -> Status {
    let word = error.code();
    let may_have_happened = ("may_have_happened", error.may_have_happened().to_string());
    let details = match &error {
        NodeError::Unavailable {
            retry_after_ms,
            leader,
            ..
        } => {
            let hint = leader.as_ref();
            let hint = hint.map_or(String::new(), |leader| leader.client_addr.clone());
            let mut details = details(word, [may_have_happened, ("leader_hint", hint)]);
            details.set_retry_info(Some(Duration::from_millis(*retry_after_ms)));
            details
        }
        NodeError::Overloaded {
            what,
            limit,
            actual,
            retry_after_ms,
        } => {
            let facts = [
                may_have_happened,
                ("limit", limit.clone()),
                ("actual", actual.clone()),
            ];
            let mut details = details(word, facts);
            details.add_quota_failure_violation(what, error.to_string());
            details.set_retry_info(Some(Duration::from_millis(*retry_after_ms)));
            details
        }
        NodeError::Unsafe { .. } | NodeError::WrongCluster { .. } => {
            let mut details = details(word, [may_have_happened]);
            details.add_precondition_failure_violation(
                word.to_uppercase(),
                "cluster",
                error.to_string(),
            );
            details
        }
        NodeError::Invalid(invalid) => invalid_details(word, invalid),
        _ => details(word, [may_have_happened]),
    };
    let status = Status::with_error_details(code, error.to_string(), details);
    with_node_error(&status, error)
}

/// The status of a refusal that the node found by itself, before anything was proposed.
pub(crate) fn refused_here(refusal: Refusal) -> Status {
    with_node_error(&refused(&refusal), NodeError::Refused(refusal))
}

/// Adds the error itself, so that our own clients get back what was said.
fn with_node_error(status: &Status, error: NodeError) -> Status {
    let known: Result<tonic_types::Status, _> = prost::Message::decode(status.details());
    let mut known = known.unwrap_or_default();
    let mut own = known.details.first().cloned().unwrap_or_default();
    own.type_url = NODE_ERROR.to_owned();
    own.value = prost::Message::encode_to_vec(&v1::NodeError::from(error));
    known.details.push(own);
    let details = prost::Message::encode_to_vec(&known);
    Status::with_details(status.code(), status.message(), details.into())
}

/// The error that a node added to its status, if it did.
pub(crate) fn node_error(status: &Status) -> Option<v1::NodeError> {
    let known: tonic_types::Status = prost::Message::decode(status.details()).ok()?;
    let own = known
        .details
        .iter()
        .find(|any| any.type_url == NODE_ERROR)?;
    prost::Message::decode(&own.value[..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::access::{Noun, Verb};

    #[test]
    fn a_lost_fence_is_a_failed_precondition_with_both_tokens() {
        let refusal = Refusal::Fenced {
            subject: Subject::Lock,
            name: "k".to_owned(),
            presented: 7,
            current: Some(9),
        };
        let status = refused(&refusal);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!((&*info.reason, &*info.domain), ("FENCED", DOMAIN));
        assert_eq!(
            (&*info.metadata["presented"], &*info.metadata["current"]),
            ("7", "9")
        );
        let failure = status.get_details_precondition_failure();
        let violations = failure.expect("a PreconditionFailure").violations;
        assert_eq!(violations[0].subject, "lock/k");
    }

    #[test]
    fn what_no_role_allows_is_denied_with_who_and_what() {
        let refusal = Refusal::Denied {
            principal: "user/ann".to_owned(),
            verb: Verb::Write,
            noun: Noun::Lease,
            key: "k".to_owned(),
        };
        let status = refused(&refusal);
        assert_eq!(status.code(), Code::PermissionDenied);
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, "DENIED");
        let facts = ["principal", "verb", "noun", "key"].map(|name| &*info.metadata[name]);
        assert_eq!(facts, ["user/ann", "write", "lease", "k"]);
    }

    #[test]
    fn a_full_queue_says_the_limit_and_when_to_try_again() {
        let refusal = Refusal::Exhausted {
            what: "items".to_owned(),
            limit: 10,
            actual: 10,
        };
        let status = refused(&refusal);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let quota = status.get_details_quota_failure().expect("a QuotaFailure");
        assert_eq!(quota.violations[0].subject, "items");
        let retry = status.get_details_retry_info().expect("a RetryInfo");
        assert_eq!(retry.retry_delay, Some(EXHAUSTED_RETRY));
    }
}
