//! `quorate top`: the cluster as it is now, on a terminal, until `q`.

mod draw;
mod listing;
#[cfg(test)]
mod samples;
mod seen;

use std::io::IsTerminal;
use std::time::Duration;

use quorate_client::admin::Admin;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::status::{MEMBER_TIMEOUT, ask_all};
use crate::args::Global;
use crate::args::top::Top;
use crate::connect;
use crate::exit::Failure;
use listing::{Asked, Source};
use seen::{Look, Seen};

/// How long a key may wait until it is read.
const KEY_TICK: Duration = Duration::from_millis(50);

/// Draws until it is told to quit. The terminal is as it was before, however it ends.
pub async fn run(global: &Global, top: &Top) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::invalid(
            "top draws on a terminal, and this is none; in a script use `quorate status -o json`",
        ));
    }
    let timeout = global.timeout.unwrap_or(MEMBER_TIMEOUT);
    let admin = connect::admin(global)?.with_timeout(timeout);
    let source = Source::new(global, &top.prefix)?;
    // Before the terminal is another: from here on a signal only asks to end.
    let told = Told::listen()?;
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, told, admin, source, top.interval).await;
    ratatui::restore();
    ended
}

/// The signals that end it.
struct Told([Signal; 3]);

impl Told {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ]))
    }

    async fn end(&mut self) {
        let [hangup, interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    told: Told,
    admin: Admin,
    source: Source,
    every: Duration,
) -> Result<(), Failure> {
    let seen = Seen::new(admin.endpoints().to_vec(), every);
    let (asked, asks) = watch::channel(None);
    let (tx, looks) = mpsc::channel(1);
    tokio::select! {
        ended = draw_until_told(terminal, told, seen, asked, looks) => ended,
        () = look_at_members(admin, every, tx.clone()) => Ok(()),
        () = look_at_lists(source, every, asks, tx) => Ok(()),
    }
}

async fn draw_until_told(
    terminal: &mut DefaultTerminal,
    mut told: Told,
    mut seen: Seen,
    asked: watch::Sender<Option<Asked>>,
    mut looks: mpsc::Receiver<Look>,
) -> Result<(), Failure> {
    let mut keys = keys();
    loop {
        terminal.draw(|frame| draw::draw(frame, &seen))?;
        tokio::select! {
            Some(look) = looks.recv() => seen.add(look),
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    if quits(&key, &seen) {
                        return Ok(());
                    }
                    seen.pressed(key.code);
                    asked.send_if_modified(|asked| {
                        let new = *asked != seen.asked;
                        asked.clone_from(&seen.asked);
                        new
                    });
                }
                // A change of size is drawn like everything else.
                Some(_) => {}
                None => return Ok(()),
            },
            () = told.end() => return Ok(()),
        }
    }
}

/// In raw mode Ctrl-C is a key like others. Escape leaves what was opened first.
fn quits(key: &KeyEvent, seen: &Seen) -> bool {
    match key.code {
        KeyCode::Char('q') => true,
        KeyCode::Esc => !seen.is_opened(),
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

/// What is typed. Reading blocks, so a thread does it; it ends when nobody listens any more, or the
/// terminal has gone.
fn keys() -> mpsc::UnboundedReceiver<Event> {
    let (tx, rx) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !tx.is_closed() {
            match event::poll(KEY_TICK) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(event) => drop(tx.send(event)),
                    Err(_) => return,
                },
                Err(_) => return,
            }
        }
    });
    rx
}

/// What the members say, again and again. A member that does not answer holds up the next look, not
/// the keys and not the lists.
async fn look_at_members(admin: Admin, every: Duration, looks: mpsc::Sender<Look>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !looks.is_closed() {
        ticks.tick().await;
        let members = ask_all(&admin).await;
        let at = Instant::now();
        let _ = looks.send(Look::Members { at, members }).await;
    }
}

/// The list that is shown, again and again, and at once when it becomes another.
async fn look_at_lists(
    source: Source,
    every: Duration,
    mut asked: watch::Receiver<Option<Asked>>,
    looks: mpsc::Sender<Look>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = asked.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
        }
        let Some(asked) = asked.borrow_and_update().clone() else {
            continue;
        };
        let listing = source.ask(&asked).await;
        let _ = looks.send(Look::List { asked, listing }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::listing::Table;
    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_quit_and_nothing_else() {
        let mut seen = Seen::new(Vec::new(), Duration::from_secs(1));
        let press = |seen: &Seen, code, modifiers| quits(&KeyEvent::new(code, modifiers), seen);
        assert!(press(&seen, KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(press(&seen, KeyCode::Esc, KeyModifiers::NONE));
        assert!(press(&seen, KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!press(&seen, KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!press(&seen, KeyCode::Enter, KeyModifiers::NONE));
        seen.asked = Some(Asked {
            table: Table::Locks,
            of: Some("k".to_owned()),
        });
        assert!(!press(&seen, KeyCode::Esc, KeyModifiers::NONE));
    }
}
