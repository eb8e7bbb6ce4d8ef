//! How far a long command is, for people.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between lines of progress where no terminal shows it in place.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far it is, on stderr: in place on a terminal, else a line now and then.
pub struct Progress {
    done: &'static str,
    terminal: bool,
    told: Instant,
    open: bool,
}

impl Progress {
    /// What is `done`, as in "saved 3 rows".
    pub fn new(done: &'static str) -> Self {
        Self {
            done,
            terminal: std::io::stderr().is_terminal(),
            told: Instant::now(),
            open: false,
        }
    }

    /// Tells how far it is, if that was not told a moment ago.
    pub fn tell(&mut self, how_far: impl FnOnce() -> String) {
        let every = match self.terminal {
            true => Duration::from_millis(200),
            false => LINE_EVERY,
        };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        self.open = self.terminal;
        let how_far = how_far();
        match self.terminal {
            true => eprint!("\r\x1b[K{} {how_far}", self.done),
            false => eprintln!("{} {how_far}", self.done),
        }
    }

    /// Leaves no line on the terminal.
    pub fn end(&mut self) {
        if self.open {
            eprint!("\r\x1b[K");
        }
    }
}
