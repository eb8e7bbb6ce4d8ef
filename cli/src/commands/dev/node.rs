//! One node of a cluster for trying out: its files, its process, its end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use toml::{Table, Value};

use crate::exit::{Exit, Failure};

/// How long a node may take to stop; `serve` bounds itself below this.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What tokio reads for the number of its worker threads.
const THREADS: &str = "TOKIO_WORKER_THREADS";

/// How much of a log is shown when its node has ended.
const LOG_TAIL_BYTES: u64 = 2_000;

/// Where a node's files are and where it listens.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Its name.
    pub name: String,
    /// For clients.
    pub client: String,
    /// For the other nodes.
    pub peer: String,
    /// For health and metrics.
    pub http: String,
    /// Its state.
    pub data_dir: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// What it says.
    pub log: PathBuf,
}

impl Layout {
    /// Of node `at`, counted from 1.
    pub fn new(dir: &Path, base_port: u16, at: u16) -> Self {
        let name = format!("node-{at}");
        let port = |offset: u16| format!("127.0.0.1:{}", base_port + 10 * (at - 1) + offset);
        Self {
            client: port(0),
            peer: port(1),
            http: port(2),
            data_dir: dir.join(&name),
            config: dir.join(format!("{name}.toml")),
            log: dir.join(format!("{name}.log")),
            name,
        }
    }

    fn has_data(&self) -> bool {
        std::fs::read_dir(&self.data_dir).is_ok_and(|mut files| files.next().is_some())
    }

    /// The configuration, less what is up to `bootstrap`.
    fn config_text(&self, bootstrap: bool) -> String {
        let text = |text: &str| Value::String(text.to_owned());
        let node = Table::from_iter([
            ("name".to_owned(), text(&self.name)),
            (
                "data_dir".to_owned(),
                text(&self.data_dir.to_string_lossy()),
            ),
            ("bootstrap".to_owned(), Value::Boolean(bootstrap)),
        ]);
        let listen = Table::from_iter([
            ("client".to_owned(), text(&self.client)),
            ("peer".to_owned(), text(&self.peer)),
            ("http".to_owned(), text(&self.http)),
        ]);
        let config = Table::from_iter([
            ("node".to_owned(), Value::Table(node)),
            ("listen".to_owned(), Value::Table(listen)),
        ]);
        config.to_string()
    }

    /// Where the last run listened for clients.
    fn last_client(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.config).ok()?;
        let config: Table = toml::from_str(&text).ok()?;
        let client = config.get("listen")?.get("client")?;
        client.as_str().map(str::to_owned)
    }
}

/// Writes the nodes' configurations. The first node founds the cluster, unless others have data
/// already: then it has lost its own, and joins.
pub fn write_configs(dir: &Path, layouts: &[Layout]) -> Result<(), Failure> {
    check_same(dir, layouts)?;
    let others_have_data = layouts.iter().skip(1).any(Layout::has_data);
    for (at, layout) in layouts.iter().enumerate() {
        let founds = at == 0 && (layout.has_data() || !others_have_data);
        std::fs::write(&layout.config, layout.config_text(founds))?;
    }
    Ok(())
}

/// Members know each other by address: a directory goes with its ports, and with all of its nodes.
fn check_same(dir: &Path, layouts: &[Layout]) -> Result<(), Failure> {
    let refused = |problem: String| Err(Failure::new(Exit::Invalid, "invalid_argument", problem));
    let shown = dir.display();
    for layout in layouts {
        match layout.last_client() {
            Some(last) if last != layout.client && layout.has_data() => {
                return refused(format!(
                    "{shown} has a cluster whose {} listens on {last}, not on {}; give the same \
                     --base-port as before, or another --data-dir",
                    layout.name, layout.client
                ));
            }
            _ => {}
        }
    }
    let next = dir.join(format!("node-{}", layouts.len() + 1));
    if next.is_dir() {
        return refused(format!(
            "{shown} has a cluster of more than {} nodes; give the same --nodes as before, or \
             another --data-dir",
            layouts.len()
        ));
    }
    Ok(())
}

/// A node whose process was started.
#[derive(Debug)]
pub struct Running {
    /// Its files and addresses.
    pub layout: Layout,
    /// Its process.
    pub pid: u32,
    /// The program that it runs.
    pub command: PathBuf,
}

/// A node's process.
pub struct Process {
    layout: Layout,
    command: PathBuf,
    pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// Starts a node. It stops when we end, however we end: it holds the other end of a pipe from us.
///
/// It runs with `threads` worker threads, unless the environment says how many.
pub fn start(
    command: &Path,
    layout: Layout,
    threads: usize,
) -> Result<(Running, Process), Failure> {
    let log = open_log(&layout.log)?;
    let threads = std::env::var(THREADS).unwrap_or_else(|_| threads.to_string());
    let mut child = Command::new(command)
        .env(THREADS, threads)
        .args(["serve", "--exit-with-parent", "--config"])
        .arg(&layout.config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C on the terminal is for us alone; we stop the nodes.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let pid = child.id().unwrap_or_default();
    let running = Running {
        layout: layout.clone(),
        pid,
        command: command.to_owned(),
    };
    let command = command.to_owned();
    Ok((
        running,
        Process {
            layout,
            command,
            pid,
            child,
            stdin,
        },
    ))
}

fn open_log(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| Failure::error("io", format!("{}: {error}", path.display())))
}

impl Process {
    /// Waits until the process has ended, by itself or because of `stop`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let ended = tokio::select! {
            status = self.child.wait() => Some(status),
            () = told(&mut stop) => None,
        };
        let status = match ended {
            Some(status) => status,
            None => self.stop().await,
        };
        Ended {
            layout: self.layout,
            command: self.command,
            pid: self.pid,
            status: status.ok(),
        }
    }

    /// The end of its stdin asks a node to stop, as SIGTERM does.
    async fn stop(&mut self) -> std::io::Result<ExitStatus> {
        self.stdin = None;
        if let Ok(status) = timeout(STOP_MAX, self.child.wait()).await {
            return status;
        }
        eprintln!(
            "{} did not stop within {STOP_MAX:?}, killing it",
            self.layout.name
        );
        self.child.kill().await?;
        self.child.wait().await
    }
}

/// Ends when `stop` says so, or when nobody is left to say it.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A node whose process has ended.
pub struct Ended {
    layout: Layout,
    command: PathBuf,
    pid: u32,
    status: Option<ExitStatus>,
}

impl Ended {
    /// What there is to say of it.
    pub fn facts(&self) -> String {
        let status = self
            .status
            .map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        let (name, pid, log) = (&self.layout.name, self.pid, self.layout.log.display());
        let mut facts = format!("{name} (pid {pid}) has ended, {status}; its log is {log}");
        match tail(&self.layout.log) {
            // A killed process has no last words.
            Ok(tail) if self.status.is_some_and(|it| it.code().is_some()) => {
                facts.push_str(":\n");
                facts.push_str(tail.trim_end());
            }
            _ => {
                let (command, config) = (self.command.display(), self.layout.config.display());
                facts.push_str(&format!(
                    "\nstart it again: {command} serve --config {config}"
                ));
            }
        }
        facts
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts(dir: &Path, base_port: u16, nodes: u16) -> Vec<Layout> {
        (1..=nodes)
            .map(|at| Layout::new(dir, base_port, at))
            .collect()
    }

    fn with_data(layout: &Layout) {
        std::fs::create_dir_all(layout.data_dir.join("log")).expect("a directory");
    }

    fn founds(layout: &Layout) -> bool {
        let text = std::fs::read_to_string(&layout.config).expect("written");
        text.contains("bootstrap = true")
    }

    #[test]
    fn the_ports_are_those_of_the_contract() {
        let node = Layout::new(Path::new("/d"), 7400, 3);
        assert_eq!(node.client, "127.0.0.1:7420");
        assert_eq!(node.peer, "127.0.0.1:7421");
        assert_eq!(node.http, "127.0.0.1:7422");
        assert_eq!(node.data_dir, Path::new("/d/node-3"));
    }

    #[test]
    fn the_first_node_founds_once_and_joins_when_it_has_lost_its_data() {
        let dir = tempfile::tempdir().expect("a directory");
        let nodes = layouts(dir.path(), 7400, 3);
        write_configs(dir.path(), &nodes).expect("new");
        assert_eq!(
            nodes.iter().map(founds).collect::<Vec<_>>(),
            [true, false, false]
        );
        with_data(&nodes[1]);
        write_configs(dir.path(), &nodes).expect("the second has data alone");
        assert!(!founds(&nodes[0]));
        with_data(&nodes[0]);
        write_configs(dir.path(), &nodes).expect("both have data");
        assert!(founds(&nodes[0]));
    }

    #[test]
    fn a_directory_goes_with_its_ports_and_its_nodes() {
        let dir = tempfile::tempdir().expect("a directory");
        let nodes = layouts(dir.path(), 7400, 3);
        write_configs(dir.path(), &nodes).expect("new");
        nodes.iter().for_each(with_data);
        let failure = write_configs(dir.path(), &layouts(dir.path(), 7500, 3)).expect_err("ports");
        assert!(
            failure
                .message()
                .contains("127.0.0.1:7400, not on 127.0.0.1:7500"),
            "{failure:?}"
        );
        let failure = write_configs(dir.path(), &nodes[..1]).expect_err("fewer nodes");
        assert!(
            failure.message().contains("more than 1 nodes"),
            "{failure:?}"
        );
        write_configs(dir.path(), &layouts(dir.path(), 7400, 5)).expect("it may grow");
    }
}
