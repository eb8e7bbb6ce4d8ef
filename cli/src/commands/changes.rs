//! Watching: what happens, one line each, until interrupted.

use std::time::Duration;

use futures::StreamExt;
use quorate_client::{Client, WatchEvent, WatchWhat};
use quorate_statemachine::notice::Notice;

use crate::exit::Failure;
use crate::output::{Printer, Row};

/// Between a watch that ended and the next: a node that ends every watch at once must not make the
/// loop spin.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Prints what `change` makes of each notice. `subject` says in words what is watched. When a node
/// is lost, the watch goes on with another from where it was; if changes are gone by then, that is
/// said on stderr.
pub async fn print<R: Row>(
    client: &Client,
    what: WatchWhat,
    subject: &str,
    printer: &mut Printer,
    change: fn(u64, &Notice) -> Option<R>,
) -> Result<(), Failure> {
    let mut from_index = 0;
    loop {
        let mut events = client.watch(what.clone(), from_index).await?;
        while let Some(event) = events.next().await {
            match event {
                WatchEvent::Registered { index } if from_index == 0 => {
                    from_index = index + 1;
                    eprintln!("watching {subject} from log index {index}");
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
                        eprintln!("some changes were lost: read the state again");
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
