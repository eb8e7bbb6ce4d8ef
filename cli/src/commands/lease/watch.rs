//! `quorate lease watch`: grants and ends as they happen, until interrupted.

use quorate_client::{Client, WatchWhat};
use quorate_statemachine::notice::Notice;
use serde::Serialize;

use super::rows::ended_by;
use crate::commands::changes;
use crate::exit::Failure;
use crate::output::{Printer, Row};

/// One grant or end.
#[derive(Debug, Serialize)]
struct Change {
    event: &'static str,
    index: String,
    key: String,
    owner_id: String,
    fencing_token: String,
    reason: Option<&'static str>,
    by: Option<String>,
}

/// Prints changes of leases whose key starts with `prefix`.
pub async fn run(client: &Client, prefix: &str, printer: &mut Printer) -> Result<(), Failure> {
    let what = WatchWhat::LeasePrefix(prefix.to_owned());
    let subject = format!("leases that start with {prefix:?}");
    changes::print(client, what, &subject, printer, change).await
}

fn change(index: u64, notice: &Notice) -> Option<Change> {
    let (event, key, owner_id, fencing_token, reason) = match notice {
        Notice::LeaseGranted {
            key,
            owner_id,
            fencing_token,
        } => ("granted", key, owner_id, fencing_token, None),
        Notice::LeaseEnded {
            key,
            owner_id,
            fencing_token,
            reason,
        } => ("ended", key, owner_id, fencing_token, Some(reason)),
        _ => return None,
    };
    Some(Change {
        event,
        index: index.to_string(),
        key: key.to_string(),
        owner_id: owner_id.to_string(),
        fencing_token: fencing_token.to_string(),
        reason: reason.map(|reason| reason.as_str()),
        by: reason.and_then(ended_by),
    })
}

impl Row for Change {
    const HEADER: &'static [&'static str] = &["EVENT", "KEY", "OWNER", "TOKEN", "REASON", "BY"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            self.event.to_owned(),
            self.key.clone(),
            self.owner_id.clone(),
            self.fencing_token.clone(),
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
    use quorate_statemachine::lease::EndReason;

    use super::*;
    use crate::output::{Captured, Format};

    #[test]
    fn an_end_says_why_and_by_whom() {
        let name = |text| Name::parse("name", text).expect("a name");
        let notice = Notice::LeaseEnded {
            key: name("k"),
            owner_id: name("a"),
            fencing_token: 7,
            reason: EndReason::Revoked {
                by: "ops".to_owned(),
            },
        };
        let change = change(9, &notice).expect("it is of a lease");
        let captured = Captured::default();
        captured
            .printer(Format::Json)
            .next(&change)
            .expect("memory");
        assert_eq!(
            captured.take(),
            "{\"event\":\"ended\",\"index\":\"9\",\"key\":\"k\",\"owner_id\":\"a\",\
             \"fencing_token\":\"7\",\"reason\":\"revoked\",\"by\":\"ops\"}\n"
        );
        captured
            .printer(Format::Table)
            .next(&change)
            .expect("memory");
        assert_eq!(captured.take(), "ended  k  a  7  revoked  ops\n");
    }
}
