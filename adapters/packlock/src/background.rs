//! The thread on which this process talks to the cluster about its packs.

use std::io;
use std::sync::{Mutex, mpsc};

use tokio::runtime::{Builder, Handle, Runtime};

/// Never dropped: what is held must be renewed, and what is dropped must be released, whichever
/// runtime the caller had and however long that lives.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime of that thread, started if there is none yet.
pub(crate) fn runtime() -> io::Result<Handle> {
    let mut runtime = RUNTIME
        .lock()
        .expect("nothing panics while it holds the lock");
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("quorate-packlock")
        .enable_all()
        .build()?;
    Ok(runtime.insert(started).handle().clone())
}

/// Waits for `work` on this thread. It may be a thread of a runtime, where tokio's own ways to
/// block would panic. None if `work` panicked.
pub(crate) fn block_on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, result) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver waits until it has got it.
        let _ = sender.send(work.await);
    });
    result.recv().ok()
}

/// What is told to a caller whose work in the background panicked.
pub(crate) fn ended() -> io::Error {
    io::Error::other("the background task ended without an answer")
}
