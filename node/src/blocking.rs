//! Work that waits for the disk.

use tokio::task::JoinError;

/// Does `work` on a thread that may block.
///
/// In a simulation there is one thread, and its disk does not wait: there the work is done here,
/// behind whatever else can go on now.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if turmoil::in_simulation() {
        tokio::task::yield_now().await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
