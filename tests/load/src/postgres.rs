//! One PostgreSQL on loopback, with its defaults: fsync and synchronous commit are on.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lash_postgres_store::{PostgresStorage, PostgresStoreConfig};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const PORT: u16 = 27_600;
const START_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A running server. It is stopped when this is dropped.
pub struct Server {
    postgres: Child,
}

/// Where the server's programs are; none if it is not installed.
pub fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// What the installed server calls itself.
pub async fn version(bin: &Path) -> Result<String> {
    let output = Command::new(bin.join("postgres")).arg("--version").output();
    let text = String::from_utf8_lossy(&output.await?.stdout).into_owned();
    Ok(text.trim().to_owned())
}

/// A command under the server's own user: it refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

impl Server {
    /// Makes a database in `dir` and starts its server.
    pub async fn start(bin: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let owned = Command::new("chown").arg("postgres").arg(dir).status();
        ensure!(owned.await?.success(), "chown {}", dir.display());
        let made = as_postgres(&bin.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "-D"])
            .arg(dir)
            .stdout(Stdio::null())
            .status();
        ensure!(made.await?.success(), "initdb in {}", dir.display());
        let postgres = as_postgres(&bin.join("postgres"))
            .arg("-D")
            .arg(dir)
            .args(["-p", &PORT.to_string(), "-k", "/tmp"])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let server = Self { postgres };
        let deadline = Instant::now() + START_MAX;
        while server.connect(1).await.is_err() {
            if Instant::now() > deadline {
                bail!("PostgreSQL did not answer within {START_MAX:?}");
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(server)
    }

    /// lash's store with so many connections.
    pub async fn connect(&self, connections: u32) -> Result<PostgresStorage> {
        let config = PostgresStoreConfig {
            max_connections: connections,
            ..PostgresStoreConfig::default()
        };
        let url = format!("postgres://postgres@127.0.0.1:{PORT}/postgres");
        PostgresStorage::connect_with(&url, config)
            .await
            .context("PostgreSQL")
    }

    /// How durable its commits are, as the server itself says. Fails unless a commit is on disk
    /// before it is answered.
    pub async fn durability(&self, bin: &Path) -> Result<String> {
        let output = Command::new(bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &PORT.to_string()])
            .args(["-U", "postgres", "--no-psqlrc", "-At"])
            .args(["-c", "SHOW fsync", "-c", "SHOW synchronous_commit"])
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let said: Vec<&str> = said.lines().collect();
        ensure!(
            said == ["on", "on"],
            "PostgreSQL is not durable: fsync and synchronous_commit are {said:?}"
        );
        Ok("fsync and synchronous_commit on".to_owned())
    }

    /// Ends it, with a checkpoint.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.postgres.id().context("it runs")?.to_string();
        // The user's shell in between passes no signal on: its child is the server.
        let ended = Command::new("pkill").args(["-INT", "-P", &pid]).status();
        ensure!(ended.await?.success(), "PostgreSQL was not there any more");
        self.postgres.wait().await?;
        Ok(())
    }
}
