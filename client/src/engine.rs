//! A thread for synchronous callers, and the hop to it from any other thread.
//!
//! Who blocks inside a tokio runtime is not allowed to `block_on`, and may stop the very tasks that
//! would answer. So a call spawns its work on the engine's own runtime and waits on a plain
//! channel.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

thread_local! {
    /// Whether this thread was told that it is no worker, see [`wait`].
    static IS_NO_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// A runtime with one thread. Dropping it never blocks, and ends what runs on it.
#[derive(Debug)]
pub struct Engine {
    /// None only while it is dropped.
    runtime: Option<Runtime>,
    name: &'static str,
}

impl Engine {
    /// Starts the thread under a name.
    pub fn start(name: &'static str) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            name,
        })
    }

    /// Does `work` on the engine's thread and blocks this one until it is done. Fails only if the
    /// work panicked.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RecvError> {
        let (sender, answer) = sync_channel(1);
        let runtime = self.runtime.as_ref();
        let runtime = runtime.expect("only drop takes the runtime, and nobody calls after that");
        runtime.spawn(async move {
            // The receiver waits for as long as it takes, so it is there.
            let _ = sender.send(work.await);
        });
        wait(&answer)
    }

    /// Lets what runs on it go on for `grace`. Does not wait for that.
    pub fn linger(mut self, grace: Duration) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let end = move || {
            // A sleep asks for the runtime when it is made: inside, not as the argument.
            runtime.block_on(async move { tokio::time::sleep(grace).await });
            runtime.shutdown_background();
        };
        let named = thread::Builder::new().name(format!("{}-end", self.name));
        if let Err(error) = named.spawn(end) {
            tracing::warn!(%error, "what runs in the background is ended at once");
        }
    }
}

impl Drop for Engine {
    /// Never blocks: the last user may be a task of some runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for the answer. A worker of a multi-threaded runtime gives its other tasks away first:
/// among them may be the embedded node that is to answer.
///
/// A task of a `LocalSet` on such a runtime looks like a worker's and must not do that; nothing
/// tells them apart but trying, and the refusal comes before the wait begins.
fn wait<T>(answer: &Receiver<T>) -> Result<T, RecvError> {
    if !may_be_a_worker() {
        return answer.recv();
    }
    let waiting = || tokio::task::block_in_place(|| answer.recv());
    match catch_unwind(AssertUnwindSafe(waiting)) {
        Ok(answer) => answer,
        Err(_) => {
            IS_NO_WORKER.set(true);
            answer.recv()
        }
    }
}

fn may_be_a_worker() -> bool {
    let is_multi_threaded =
        |runtime: Handle| matches!(runtime.runtime_flavor(), RuntimeFlavor::MultiThread);
    tokio::task::try_id().is_some()
        && Handle::try_current().is_ok_and(is_multi_threaded)
        && !IS_NO_WORKER.get()
}
