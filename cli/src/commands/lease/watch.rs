//! `quorate lease watch`: grants and ends as they happen, until interrupted.

use std::time::Duration;

use futures::StreamExt;
use quorate_client::{Client, WatchEvent, WatchWhat};
use quorate_statemachine::notice::Notice;
use serde::Serialize;

use super::rows::ended_by;
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

/// Prints changes of leases whose key starts with `prefix`. When a node is lost, the watch goes on
/// with another from where it was; if changes are gone by then, that is said on stderr.
pub async fn run(client: &Client, prefix: &str, printer: &mut Printer) -> Result<(), Failure> {
    let mut from_index = 0;
    loop {
        let what = WatchWhat::LeasePrefix(prefix.to_owned());
        let mut events = client.watch(what, from_index).await?;
        while let Some(event) = events.next().await {
            match event {
                WatchEvent::Registered { index } if from_index == 0 => {
                    from_index = index + 1;
                    eprintln!("watching leases that start with {prefix:?} from log index {index}");
                }
                WatchEvent::Registered { .. } => {}
                WatchEvent::Notices { index, notices } => {
                    from_index = index + 1;
                    for change in notices.iter().filter_map(|notice| change(index, notice)) {
                        printer.next(&change)?;
                    }
                }
                WatchEvent::Lagged { resume_from } => {
                    from_index = resume_from;
                    if resume_from == 0 {
                        eprintln!("some changes were lost: read the leases again");
                    }
                }
            }
        }
        // A node that ends every watch at once must not make this loop spin.
        tokio::time::sleep(PAUSE).await;
    }
}

const PAUSE: Duration = Duration::from_millis(100);

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
