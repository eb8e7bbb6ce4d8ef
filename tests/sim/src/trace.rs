//! What happened, in order: printed when asked for, and hashed always.

use std::cell::RefCell;
use std::fmt;
use std::io;

use tracing_subscriber::fmt::MakeWriter;

thread_local! {
    static TRACE: RefCell<Trace> = const { RefCell::new(Trace::BEGIN) };
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

#[derive(Clone, Copy)]
struct Trace {
    hash: u64,
    lines: u64,
    shown: bool,
}

impl Trace {
    const BEGIN: Self = Self {
        hash: FNV_BASIS,
        lines: 0,
        shown: false,
    };
}

/// Prints every line from here on.
pub fn show() {
    TRACE.with_borrow_mut(|trace| trace.shown = true);
}

/// Number of lines so far, and their hash.
#[must_use]
pub fn hash() -> (u64, u64) {
    TRACE.with_borrow(|trace| (trace.lines, trace.hash))
}

/// A line of the harness: what it did to the cluster, or what a client was told.
pub fn note(at_ms: u128, what: fmt::Arguments<'_>) {
    take(&format!("{at_ms:>7} {what}\n"));
}

fn take(line: &str) {
    TRACE.with_borrow_mut(|trace| {
        trace.lines += 1;
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.shown {
            print!("{line}");
        }
    });
}

/// Takes what the nodes log.
#[derive(Clone, Copy)]
pub struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        take(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
