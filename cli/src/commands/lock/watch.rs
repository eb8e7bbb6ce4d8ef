//! `quorate lock watch`: grants and ends as they happen, until interrupted.

use quorate_client::{Client, WatchWhat, acquisition_text};
use quorate_statemachine::FencingToken;
use quorate_statemachine::lock::End;
use quorate_statemachine::notice::Notice;
use serde::Serialize;

use crate::commands::changes;
use crate::exit::Failure;
use crate::output::{Printer, Row};

/// One thing that happened to a lock.
#[derive(Debug, Serialize)]
struct Change {
    event: &'static str,
    index: String,
    key: String,
    acquisition: Option<String>,
    owner_id: Option<String>,
    /// None when a wait ended.
    fencing_token: Option<String>,
    reason: Option<&'static str>,
    by: Option<String>,
}

/// Prints changes of locks whose key starts with `prefix`.
pub async fn run(client: &Client, prefix: &str, printer: &mut Printer) -> Result<(), Failure> {
    let what = WatchWhat::LockPrefix(prefix.to_owned());
    let subject = format!("locks that start with {prefix:?}");
    changes::print(client, what, &subject, printer, change).await
}

fn change(index: u64, notice: &Notice) -> Option<Change> {
    let (event, key, member, fencing_token, end) = match notice {
        Notice::LockGranted {
            key,
            id,
            owner_id,
            fencing_token,
        } => (
            "granted",
            key,
            Some((id, owner_id)),
            Some(*fencing_token),
            None,
        ),
        Notice::LockLeft {
            key,
            id,
            owner_id,
            end,
        } => ("left", key, Some((id, owner_id)), token_of(end), Some(end)),
        Notice::LockProclaimed { key, fencing_token } => {
            ("proclaimed", key, None, Some(*fencing_token), None)
        }
        _ => return None,
    };
    Some(Change {
        event,
        index: index.to_string(),
        key: key.to_string(),
        acquisition: member.map(|(id, _)| acquisition_text(*id)),
        owner_id: member.map(|(_, owner_id)| owner_id.to_string()),
        fencing_token: fencing_token.map(|token| token.to_string()),
        reason: end.map(End::as_str),
        by: end.and_then(by),
    })
}

/// The token of the hold that ended; none if it was a wait.
fn token_of(end: &End) -> Option<FencingToken> {
    match end {
        End::Released { fencing_token }
        | End::Expired { fencing_token, .. }
        | End::Revoked { fencing_token, .. } => Some(*fencing_token),
        End::Cancelled | End::GaveUp | End::WaiterDied | End::Deadlock { .. } => None,
    }
}

fn by(end: &End) -> Option<String> {
    match end {
        End::Revoked { by, .. } => Some(by.clone()),
        _ => None,
    }
}

impl Row for Change {
    const HEADER: &'static [&'static str] = &["EVENT", "KEY", "OWNER", "TOKEN", "REASON", "BY"];

    fn cells(&self) -> Vec<String> {
        let nothing = || "-".to_owned();
        let mut cells = vec![
            self.event.to_owned(),
            self.key.clone(),
            self.owner_id.clone().unwrap_or_else(nothing),
            self.fencing_token.clone().unwrap_or_else(nothing),
        ];
        cells.extend(self.reason.map(str::to_owned));
        cells.extend(self.by.clone());
        cells
    }

    fn name(&self) -> String {
        self.key.clone()
    }
}

#[cfg(test)]
mod tests {
    use quorate_statemachine::Name;

    use super::*;
    use crate::output::{Captured, Format};

    fn printed(notice: &Notice, format: Format) -> String {
        let change = change(9, notice).expect("it is of a lock");
        let captured = Captured::default();
        captured.printer(format).next(&change).expect("memory");
        captured.take()
    }

    fn left(end: End) -> Notice {
        let name = |text| Name::parse("name", text).expect("a name");
        let (key, owner_id) = (name("k"), name("a"));
        Notice::LockLeft {
            key,
            id: [1; 16],
            owner_id,
            end,
        }
    }

    #[test]
    fn the_end_of_a_hold_says_why_and_by_whom() {
        let notice = left(End::Revoked {
            fencing_token: 7,
            by: "ops".to_owned(),
        });
        assert_eq!(
            printed(&notice, Format::Json),
            "{\"event\":\"left\",\"index\":\"9\",\"key\":\"k\",\
             \"acquisition\":\"01010101-0101-0101-0101-010101010101\",\"owner_id\":\"a\",\
             \"fencing_token\":\"7\",\"reason\":\"revoked\",\"by\":\"ops\"}\n"
        );
        assert_eq!(
            printed(&notice, Format::Table),
            "left  k  a  7  revoked  ops\n"
        );
    }

    #[test]
    fn the_end_of_a_wait_has_no_token_and_a_proclamation_no_owner() {
        assert_eq!(
            printed(&left(End::GaveUp), Format::Table),
            "left  k  a  -  gave_up\n"
        );
        let proclaimed = Notice::LockProclaimed {
            key: Name::parse("name", "k").expect("a name"),
            fencing_token: 7,
        };
        assert_eq!(printed(&proclaimed, Format::Table), "proclaimed  k  -  7\n");
    }
}
