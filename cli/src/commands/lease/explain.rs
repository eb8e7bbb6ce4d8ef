//! `quorate lease explain`: a key's story in sentences.

use quorate_client::{Client, KeyStory};
use quorate_statemachine::lease::{EndReason, Ended, Lease};
use quorate_statemachine::{Name, Timestamp, limits};
use serde::Serialize;

use super::rows::{EndedRow, LeaseRow};
use crate::exit::Failure;
use crate::output::Printer;
use crate::value::{span, time};

#[derive(Serialize)]
struct Explanation {
    key: String,
    held: bool,
    lease: Option<LeaseRow>,
    history: Vec<EndedRow>,
    sentences: Vec<String>,
}

/// Says who holds `key`, since when and for how long, and why each grant before ended.
pub async fn run(client: &Client, key: &str, printer: &mut Printer) -> Result<(), Failure> {
    let key = Name::parse("key", key)?;
    let story = client.lease_history(&key).await?;
    let sentences = explain(&key, &story);
    let text = sentences.join("\n");
    let explanation = Explanation {
        key: key.to_string(),
        held: story.live.is_some(),
        lease: story
            .live
            .as_ref()
            .map(|lease| LeaseRow::new(lease, story.now)),
        history: story
            .history
            .ended
            .iter()
            .map(|ended| EndedRow::new(&key, ended))
            .collect(),
        sentences,
    };
    Ok(printer.value(&explanation, &text)?)
}

fn explain(key: &Name, story: &KeyStory) -> Vec<String> {
    let mut sentences = match &story.live {
        Some(lease) => held(lease, story.now),
        None if story.history.ended.is_empty() => vec![format!(
            "Nobody holds lease {:?}, and no grant of it is remembered: it was never claimed, or \
             its last grant ended more than {} ago.",
            key.as_str(),
            span(limits::LEASE_HISTORY_RETENTION_MS)
        )],
        None => vec![format!(
            "Nobody holds lease {:?}: a claim would get it.",
            key.as_str()
        )],
    };
    sentences.extend(
        story
            .history
            .ended
            .iter()
            .rev()
            .map(|ended| over(ended, story.now)),
    );
    sentences.extend(forgotten(story));
    sentences
}

fn held(lease: &Lease, now: Timestamp) -> Vec<String> {
    let granted = format!(
        "Lease {:?} is held by {}, with fencing token {}, since {} ({} ago).",
        lease.key.as_str(),
        holder(&lease.owner),
        lease.fencing_token,
        time(lease.granted_at),
        span(now.since(lease.granted_at)),
    );
    let renewed = match lease.renewals {
        0 => "It was not renewed yet.".to_owned(),
        1 => format!(
            "It was renewed once, {} ago.",
            span(now.since(lease.renewed_at))
        ),
        many => format!(
            "It was renewed {many} times, last {} ago.",
            span(now.since(lease.renewed_at))
        ),
    };
    let left = format!(
        "It has {} left of its time to live of {}: unless it is renewed or released, it ends at \
         {}.",
        span(lease.expires_at.since(now)),
        span(lease.ttl_ms),
        time(lease.expires_at),
    );
    vec![granted, renewed, left]
}

fn holder(owner: &quorate_statemachine::Owner) -> String {
    if owner.owner_id == owner.incarnation_id {
        return format!("{:?}", owner.owner_id.as_str());
    }
    format!(
        "{:?} (incarnation {:?})",
        owner.owner_id.as_str(),
        owner.incarnation_id.as_str()
    )
}

fn over(ended: &Ended, now: Timestamp) -> String {
    let why = match &ended.reason {
        EndReason::Expired => format!(
            "it expired, {} after it was last renewed or granted",
            span(ended.ended_at.since(ended.renewed_at))
        ),
        EndReason::Released => "its holder released it".to_owned(),
        EndReason::Superseded => {
            "it was superseded: the same owner claimed again and got a fresh grant".to_owned()
        }
        EndReason::Reclaimed { by } => {
            format!(
                "it was reclaimed by {:?}, who took its holder for dead",
                by.as_str()
            )
        }
        EndReason::Revoked { by } => format!("it was revoked by {by:?}"),
    };
    format!(
        "The grant with fencing token {} of {}, made at {}, ended at {} ({} ago) because {why}.",
        ended.fencing_token,
        holder(&ended.owner),
        time(ended.granted_at),
        time(ended.ended_at),
        span(now.since(ended.ended_at)),
    )
}

/// Grants that the bounded history has dropped.
fn forgotten(story: &KeyStory) -> Option<String> {
    let live = u64::from(story.live.is_some());
    let grants = story
        .live
        .as_ref()
        .map_or(story.history.epoch, |lease| lease.epoch);
    let count = grants.saturating_sub(story.history.ended.len() as u64 + live);
    match count {
        0 => None,
        1 => Some("One earlier grant is no longer remembered.".to_owned()),
        _ => Some(format!("{count} earlier grants are no longer remembered.")),
    }
}

#[cfg(test)]
mod tests {
    use quorate_statemachine::lease::History;
    use quorate_statemachine::{LeaseToken, Owner};

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse("name", text).expect("a name")
    }

    fn ended(fencing_token: u64, reason: EndReason) -> Ended {
        Ended {
            owner: Owner::new(name("b"), name("b")),
            lease_token: LeaseToken::parse("t").expect("a token"),
            fencing_token,
            granted_at: Timestamp(10_000),
            renewed_at: Timestamp(12_000),
            ttl_ms: 5_000,
            ended_at: Timestamp(17_000),
            ended_index: 9,
            reason,
        }
    }

    fn live() -> Lease {
        Lease {
            key: name("jobs"),
            owner: Owner::new(name("a"), name("boot-2")),
            lease_token: LeaseToken::parse("t").expect("a token"),
            fencing_token: 42,
            epoch: 7,
            ttl_ms: 10_000,
            granted_at: Timestamp(20_000),
            renewed_at: Timestamp(28_000),
            expires_at: Timestamp(38_000),
            filed_at: Timestamp(30_000),
            renewals: 2,
            metadata: Vec::new(),
        }
    }

    fn story(live: Option<Lease>, ended: Vec<Ended>, epoch: u64) -> KeyStory {
        let history = History {
            epoch,
            ended: ended.into(),
        };
        KeyStory {
            history,
            live,
            index: 1,
            now: Timestamp(29_500),
        }
    }

    #[test]
    fn a_held_key_names_holder_time_left_and_the_ends_before() {
        let by = name("c");
        let ends = vec![
            ended(30, EndReason::Expired),
            ended(31, EndReason::Released),
            ended(32, EndReason::Superseded),
            ended(33, EndReason::Reclaimed { by }),
            ended(
                34,
                EndReason::Revoked {
                    by: "ops: stuck".to_owned(),
                },
            ),
        ];
        let made = "of \"b\", made at 1970-01-01T00:00:10.000Z, ended at \
                    1970-01-01T00:00:17.000Z (12.5s ago) because";
        assert_eq!(
            explain(&name("jobs"), &story(Some(live()), ends, 6)),
            [
                "Lease \"jobs\" is held by \"a\" (incarnation \"boot-2\"), with fencing token 42, \
                 since 1970-01-01T00:00:20.000Z (9.5s ago)."
                    .to_owned(),
                "It was renewed 2 times, last 1.5s ago.".to_owned(),
                "It has 8.5s left of its time to live of 10s: unless it is renewed or released, it \
                 ends at 1970-01-01T00:00:38.000Z."
                    .to_owned(),
                format!("The grant with fencing token 34 {made} it was revoked by \"ops: stuck\"."),
                format!(
                    "The grant with fencing token 33 {made} it was reclaimed by \"c\", who took \
                     its holder for dead."
                ),
                format!(
                    "The grant with fencing token 32 {made} it was superseded: the same owner \
                     claimed again and got a fresh grant."
                ),
                format!("The grant with fencing token 31 {made} its holder released it."),
                format!(
                    "The grant with fencing token 30 {made} it expired, 5s after it was last \
                     renewed or granted."
                ),
                "One earlier grant is no longer remembered.".to_owned(),
            ]
        );
    }

    #[test]
    fn a_free_key_says_so() {
        let free = explain(
            &name("jobs"),
            &story(None, vec![ended(3, EndReason::Released)], 1),
        );
        assert_eq!(
            free[0],
            "Nobody holds lease \"jobs\": a claim would get it."
        );
        assert_eq!(free.len(), 2);
        let unknown = explain(&name("jobs"), &story(None, Vec::new(), 0));
        assert_eq!(
            unknown,
            [
                "Nobody holds lease \"jobs\", and no grant of it is remembered: it was never \
                 claimed, or its last grant ended more than 1h ago."
            ]
        );
    }
}
