//! The workers: processes of their own that take orders on stdin and report on stdout.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::job::{Job, Order, Report};
use crate::progress::{Board, Held};

/// How long a worker may take to end: it looks at its orders every second.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A worker process.
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Worker {
    /// Starts worker `at` and notes its reports on `board`.
    pub fn start(at: usize, endpoints: &[String], job: &Job, board: &Board) -> Result<Self> {
        let name = format!("worker-{}", at + 1);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .args(["--endpoints", &endpoints.join(",")])
            .args(["--queue", job.queue.as_str()])
            .args(["--process", job.process.as_str()])
            .args(["--name", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the orchestrator.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        tokio::spawn(read(at, BufReader::new(stdout).lines(), board.clone()));
        Ok(Self {
            pid: child.id().unwrap_or_default(),
            stdin: child.stdin.take(),
            name,
            child,
        })
    }

    /// Gives an order.
    pub async fn order(&mut self, order: Order) -> Result<()> {
        let line = serde_json::to_string(&order)? + "\n";
        let stdin = self.stdin.as_mut().context("orders end with the worker")?;
        stdin
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("orders to {}", self.name))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid, signal).with_context(|| self.name.clone())
    }

    /// Waits until the process is stopped by SIGSTOP, not only about to be.
    pub async fn stopped(&self) -> Result<()> {
        let deadline = Instant::now() + STOP_MAX;
        let path = format!("/proc/{}/stat", self.pid);
        loop {
            let stat = std::fs::read_to_string(&path).context("the worker's state")?;
            // "pid (name) state …", and the name may hold anything.
            if stat
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" T"))
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} did not stop on SIGSTOP", self.name);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, and says whether it ended well.
    pub async fn end(mut self) -> Result<()> {
        self.stdin = None;
        match timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Ok(status) => bail!("{} ended with {:?}", self.name, status?),
            Err(_) => bail!("{} did not end within {STOP_MAX:?}", self.name),
        }
    }

    /// Kills it, and takes note of its end.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

async fn read(at: usize, mut lines: Lines<BufReader<ChildStdout>>, board: Board) {
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(report) => board.note(|progress| match report {
                Report::Done { .. } => progress.settled(),
                Report::Holding { item, token } => {
                    progress.holding.insert(at, Held { item, token });
                }
                Report::Stale { item, token } => progress.stale.push(Held { item, token }),
                Report::Unknown { .. } => progress.unanswered += 1,
            }),
            Err(error) => eprintln!("a worker says {line:?}: {error}"),
        }
    }
}
