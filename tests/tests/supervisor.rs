//! What `quorate serve` tells the supervisor that started it, over a real notification socket.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_tests::program::{Served, alone, quorate};
use quorate_tests::wait::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn serve(dir: &std::path::Path, socket: &std::path::Path, watchdog: Duration) -> Result<Served> {
    let mut serve = Command::new(quorate(NODE));
    serve
        .args(alone(&dir.join("data")))
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(Served(serve.spawn()?))
}

/// The next message that has `what` in it; others are passed by.
fn heard(socket: &UnixDatagram, what: &str) -> Result<String> {
    let mut bytes = [0; 1_024];
    loop {
        let length = socket
            .recv(&mut bytes)
            .with_context(|| format!("{what} did not come"))?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.lines().any(|line| line == what) {
            return Ok(text);
        }
    }
}

#[test]
fn a_supervisor_hears_ready_then_work_then_stopping() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut served = serve(dir.path(), &path, Duration::from_millis(400))?;
    let ready = heard(&socket, "READY=1")?;
    ensure!(ready.contains("STATUS=n (127.0.0.1:"), "{ready}");
    heard(&socket, "WATCHDOG=1")?;
    heard(&socket, "WATCHDOG=1")?;
    kill_process(Pid::from_child(&served.0), Signal::TERM)?;
    let stopping = heard(&socket, "STOPPING=1")?;
    ensure!(stopping.contains("SIGTERM"), "{stopping}");
    let status = served.0.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
