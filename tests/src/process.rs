//! One node as an operating-system process: started, killed, paused, and started again on the same
//! directory and the same ports.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use quorate_node::Config;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, until};

/// Below the range from which systems give ports to outgoing connections: a port that a killed node
/// has left must not be taken by a client's connection before the node is back.
const PORTS: Range<u16> = 11_000..30_000;

/// Where ports are taken for good by whoever runs tests on this machine: a file each.
const TAKEN: &str = "quorate-test-ports";

/// A port that nobody listens on, and that no test gets beside this process, also while its node is
/// stopped: a client that knows the address must not find another test's cluster there.
pub fn free_port() -> u16 {
    let dir = std::env::temp_dir().join(TAKEN);
    std::fs::create_dir_all(&dir).expect("files can be made where temporary files are");
    loop {
        let port = fastrand::u16(PORTS);
        let path = dir.join(port.to_string());
        let file = File::create(path).expect("a file can be made in a directory of ours");
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            // The system lets go of the lock when the process ends, however it ends.
            std::mem::forget(file);
            return port;
        }
    }
}

/// Starts a command, where and how it likes.
pub type Spawn = Arc<dyn Fn(Command) -> std::io::Result<Child> + Send + Sync>;

/// A node's process, or the place where it was and can be again.
pub struct NodeProcess {
    config: Config,
    binary: PathBuf,
    config_path: PathBuf,
    stderr_path: PathBuf,
    env: Vec<(&'static str, String)>,
    spawn: Spawn,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node with this configuration, not started. Its files lie in `dir` under `name`.
    pub fn new(binary: &Path, dir: &Path, name: &str, config: Config) -> Result<Self> {
        let node = Self {
            binary: binary.to_owned(),
            config_path: dir.join(format!("{name}.toml")),
            stderr_path: dir.join(format!("{name}.stderr")),
            config,
            env: Vec::new(),
            spawn: Arc::new(|mut command| command.spawn()),
            child: None,
        };
        std::fs::write(&node.config_path, toml::to_string(&node.config)?)?;
        File::create(&node.stderr_path)?;
        Ok(node)
    }

    /// The same with this in its environment.
    #[must_use]
    pub fn with_env(mut self, env: Vec<(&'static str, String)>) -> Self {
        self.env = env;
        self
    }

    /// The same, started by this.
    #[must_use]
    pub fn with_spawn(mut self, spawn: Spawn) -> Self {
        self.spawn = spawn;
        self
    }

    /// Changes its configuration for the next start.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.config);
        std::fs::write(&self.config_path, toml::to_string(&self.config)?)?;
        Ok(())
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where clients reach the process itself.
    #[must_use]
    pub fn client_addr(&self) -> &str {
        &self.config.listen.client
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.config.node.data_dir
    }

    /// Starts the process. Its standard error is added to what earlier runs wrote.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.config.node.name);
        }
        let stderr = OpenOptions::new().append(true).open(&self.stderr_path)?;
        let mut command = Command::new(&self.binary);
        command
            .arg(&self.config_path)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr);
        let child = (self.spawn)(command);
        let child = child.with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// How it ended, if it was started and has ended by itself since.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Makes the state of the node, which was killed, another than its log says.
    pub async fn plant(&self) -> Result<()> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.arg(&self.config_path).arg("plant");
        let output = command.output().await?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("nothing was planted: {words}");
        }
        Ok(())
    }

    /// Whether it was started and not stopped since.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until the process has ended. Fails unless it ends in order.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.exited().await?;
        if !status.success() {
            bail!(
                "{} ended with {status} after SIGTERM",
                self.config.node.name
            );
        }
        Ok(())
    }

    /// Waits until the process ends by itself.
    pub async fn exited(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let gone = until("the process to end", PATIENCE, async || {
            Ok(child.try_wait()?)
        })
        .await;
        if gone.is_err() {
            child.kill()?;
            child.wait()?;
        }
        gone
    }

    /// SIGSTOP, and waits until the process stands still.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", self.pid()?);
        until("the process to stand still", PATIENCE, async || {
            let stat = std::fs::read_to_string(&stat)?;
            let state = stat
                .rsplit_once(") ")
                .map(|(_, rest)| rest.starts_with('T'));
            Ok((state == Some(true)).then_some(()))
        })
        .await
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The process that runs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// What the process and those before it wrote to standard error.
    pub fn stderr(&self) -> Result<String> {
        let bytes = std::fs::read(&self.stderr_path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if self.is_running() {
            // A process that is gone already is no problem here.
            let _ = self.kill();
        }
    }
}
