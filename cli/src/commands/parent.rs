//! Ending with the process that started this one.

use std::io::Read;

use tokio::sync::oneshot;

/// Resolves when stdin ends: when whoever holds its other end closes it or dies, however it dies.
///
/// A thread reads: a read of stdin cannot be cancelled, and must not hold the runtime up.
pub fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        drop(ended);
    });
    receiver
}
