//! Bytes on a connection, as they are.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the other end may be silent before it is taken to have said all.
const SILENCE: Duration = Duration::from_millis(20);

/// Most that is read of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends `parts` one after the other, and reads what comes back until it ends or stops.
pub async fn send(address: &str, parts: &[&[u8]]) {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the port takes connections");
    for part in parts {
        // The other end may have closed: then nothing more is to be said.
        if stream.write_all(part).await.is_err() {
            return;
        }
    }
    let (mut answer, mut read) = ([0; 4_096], 0);
    while read < ANSWER_BYTES_MAX {
        match timeout(SILENCE, stream.read(&mut answer)).await {
            Ok(Ok(count)) if count > 0 => read += count,
            _ => return,
        }
    }
}
