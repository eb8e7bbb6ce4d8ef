//! `quorate serve`: run one node until it is told to stop.

pub mod layers;
mod supervisor;
mod traces;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use quorate_node::config::{LogFormat, LogSection};
use quorate_node::{Config, Health, Node, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::parent::end_of_stdin;
use crate::args::serve::Serve;
use crate::exit::Failure;
use layers::{Flag, layered};

/// How long a clean stop may take before the process ends anyway. A node needs about 3 s for each
/// of: handing over, answering what is under way, closing.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Checks, prints, or runs.
pub fn run(serve: &Serve) -> Result<(), Failure> {
    let layered = layered(serve.config.as_deref(), text_variables(), flags(serve))?;
    if serve.print_config {
        print!("{layered}");
    }
    filter(&layered.config.log)?;
    if serve.check {
        let certificates = quorate_node::check_certificates(&layered.config);
        certificates.map_err(|error| Failure::invalid(format!("TLS: {error}")))?;
    }
    if serve.print_config || serve.check {
        return Ok(());
    }
    start_log(&layered.config.log)?;
    allow_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let traces = {
        let _on = runtime.enter();
        traces::start(&layered.config)?
    };
    runtime.spawn(supervisor::at_work());
    let ended = runtime.block_on(serve_until_told(layered.config, serve.exit_with_parent));
    traces.end();
    // What still runs has nothing left to acknowledge.
    runtime.shutdown_background();
    ended
}

/// The environment. A variable that is no text is none of the options.
fn text_variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text)
}

/// The options that its flags set.
pub fn flags(serve: &Serve) -> Vec<Flag> {
    let texts = [
        ("--data-dir", "node.data_dir", &serve.data_dir),
        ("--name", "node.name", &serve.name),
        ("--listen-client", "listen.client", &serve.listen_client),
        ("--listen-peer", "listen.peer", &serve.listen_peer),
        ("--listen-http", "listen.http", &serve.listen_http),
    ];
    let given = |(flag, option, text): (_, _, &Option<String>)| {
        let value = Value::String(text.clone()?);
        Some(Flag {
            flag,
            option,
            value,
        })
    };
    let bootstrap = serve.bootstrap.then_some(Flag {
        flag: "--bootstrap",
        option: "node.bootstrap",
        value: Value::Boolean(true),
    });
    let insecure = serve.insecure.then_some(Flag {
        flag: "--insecure",
        option: "security.insecure",
        value: Value::Boolean(true),
    });
    texts
        .into_iter()
        .filter_map(given)
        .chain(bootstrap)
        .chain(insecure)
        .collect()
}

/// Each connection is a file. What this process may raise its limit to by itself, it does.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(?current, ?maximum, %error, "the limit of open files was not raised");
    }
}

/// Logs go to stderr, like all words.
fn start_log(log: &LogSection) -> Result<(), Failure> {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(log)?)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Human => lines.with_ansi(color).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::error("log", error.to_string()))
}

pub fn filter(log: &LogSection) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(&log.filter).map_err(|error| {
        Failure::invalid(format!(
            "configuration: log.filter {:?}: {error}; give levels, as {:?}",
            log.filter,
            LogSection::default().filter
        ))
    })
}

async fn serve_until_told(config: Config, with_parent: bool) -> Result<(), Failure> {
    let mut stop = Stop::new(with_parent)?;
    let node = tokio::select! {
        started = Node::start(config) => started.map_err(not_started)?,
        why = stop.asked() => {
            tracing::info!(why, "stopped before it had started");
            return Ok(());
        }
    };
    tracing::info!(member = %node.member(), "the node runs");
    supervisor::ready(&node.member());
    let mut health = node.health();
    tokio::select! {
        facts = failure(&mut health) => {
            Err(Failure::error("stopped", format!("the node has stopped: {facts}")))
        }
        why = stop.asked() => {
            tracing::info!(why, "stopping; once more ends it at once");
            supervisor::stopping(why);
            stop_cleanly(node, &mut stop).await
        }
    }
}

fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Config(invalid) => invalid.into(),
        other => Failure::error("not_started", format!("the node did not start: {other}")),
    }
}

/// Ends when the node has stopped because something is broken.
async fn failure(health: &mut watch::Receiver<Health>) -> String {
    let failed = health
        .wait_for(|health| matches!(health, Health::Failed(_)))
        .await;
    match failed.as_deref() {
        Ok(Health::Failed(facts)) => facts.clone(),
        _ => "it says nothing more of itself".to_owned(),
    }
}

async fn stop_cleanly(node: Node, stop: &mut Stop) -> Result<(), Failure> {
    tokio::select! {
        stopped = timeout(STOP_MAX, node.shutdown()) => match stopped {
            Ok(()) => {
                tracing::info!("stopped");
                Ok(())
            }
            Err(_) => Err(Failure::error("not_stopped", format!(
                "the node did not stop within {STOP_MAX:?} and was ended; the next start replays \
                 its log"
            ))),
        },
        why = stop.asked() => Err(Failure::error("not_stopped", format!(
            "{why} came again, the node was ended; the next start replays its log"
        ))),
    }
}

/// What tells the process to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    parent: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn new(with_parent: bool) -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            parent: with_parent.then(end_of_stdin),
        })
    }

    /// Says what told it. Can be asked again.
    async fn asked(&mut self) -> &'static str {
        let parent = async {
            match &mut self.parent {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            _ = self.interrupt.recv() => return "SIGINT",
            _ = self.terminate.recv() => return "SIGTERM",
            () = parent => "the end of the parent process",
        };
        self.parent = None;
        why
    }
}
