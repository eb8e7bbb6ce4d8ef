//! The thread that does the plugin's work, and what is left under way when the plugin goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvError;
use std::time::Duration;

use quorate_client::{Client, engine};

/// A thread, and the client whose connections live on it.
pub(crate) struct Engine {
    /// None only while it is dropped.
    thread: Option<engine::Engine>,
    client: Client,
    /// How long releases in the background may go on when the engine is dropped.
    grace: Duration,
    /// Whether a try ended with its outcome unknown, so that its release may be under way.
    in_doubt: AtomicBool,
}

impl Engine {
    /// Starts the thread. `grace` is for releases that are under way when the engine is dropped.
    pub(crate) fn start(client: Client, grace: Duration) -> std::io::Result<Self> {
        Ok(Self {
            thread: Some(engine::Engine::start("quorate-bext")?),
            client,
            grace,
            in_doubt: AtomicBool::new(false),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Notes that a release in the background may be under way.
    pub(crate) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// Does `work` on the engine's thread and blocks this one until it is done. Fails only if the
    /// work panicked.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RecvError> {
        let thread = self.thread.as_ref();
        let thread = thread.expect("only drop takes the thread, and nobody calls after that");
        thread.run(work)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && *self.in_doubt.get_mut()
        {
            thread.linger(self.grace);
        }
    }
}
