//! `quorate top`, the real program on a pseudo-terminal: it shows the cluster as it changes, and
//! leaves the terminal as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use quorate_client::statemachine::lease::Claimed;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::program::{Served, quorate};
use quorate_tests::wait::{PATIENCE, until};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// A terminal of 120 columns and 30 lines with a program on it.
struct Terminal {
    program: Served,
    keys: File,
    settings: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(endpoints: &str) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let size = Winsize {
            ws_row: 30,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size)?;
        let before = tcgetattr(&slave)?;
        let program = start(endpoints, &slave)?;
        let (keys, mut screen) = (File::from(master.try_clone()?), File::from(master));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // An error is the end: nobody has the other side open any more.
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                let mut kept = kept.lock().expect("nothing panics while it holds it");
                kept.extend(&bytes[..length]);
            }
        });
        Ok(Self {
            program: Served(program),
            keys,
            settings: slave,
            before,
            shown,
        })
    }

    /// All that was written since the start. What does not change is not written again.
    fn shown(&self) -> String {
        let shown = self.shown.lock().expect("nothing panics while it holds it");
        String::from_utf8_lossy(&shown).into_owned()
    }

    async fn shows(&self, words: &str) -> Result<()> {
        until(words, PATIENCE, async || {
            Ok(self.shown().contains(words).then_some(()))
        })
        .await
        .with_context(|| self.shown())
    }

    fn press(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.keys.write_all(keys)?)
    }

    /// Types a key that ends the program, and looks at what it leaves.
    async fn ends_with(mut self, key: &[u8]) -> Result<()> {
        self.press(key)?;
        self.ended().await
    }

    /// Sends a signal that ends the program, and looks at what it leaves.
    async fn ends_by(mut self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.program.0), signal)?;
        self.ended().await
    }

    async fn ended(&mut self) -> Result<()> {
        ensure!(self.shown().contains(ENTER), "on a screen of its own");
        let status = until("top to end", PATIENCE, async || {
            Ok(self.program.0.try_wait()?)
        });
        let status = status.await?;
        ensure!(status.success(), "{status}: {}", self.shown());
        self.shows(LEAVE).await?;
        let after = tcgetattr(&self.settings)?;
        let same = after.local_modes == self.before.local_modes
            && after.input_modes == self.before.input_modes;
        ensure!(same, "lines and echo are as they were");
        Ok(())
    }
}

fn start(endpoints: &str, terminal: &OwnedFd) -> Result<Child> {
    let side = || -> Result<Stdio> { Ok(terminal.try_clone()?.into()) };
    // In a session of its own: the terminal of whoever runs the test is not the program's.
    let mut top = Command::new("setsid");
    top.arg(quorate(NODE))
        .args(["top", "--interval", "100ms"])
        .env("QUORATE_ENDPOINTS", endpoints)
        .env("TERM", "xterm-256color")
        .stdin(side()?)
        .stdout(side()?)
        .stderr(Stdio::null());
    Ok(top.spawn()?)
}

fn endpoints(cluster: &Cluster) -> String {
    cluster.all_endpoints().join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screen_follows_the_cluster_and_q_gives_the_terminal_back() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let top = Terminal::start(&endpoints(cluster))?;
        for words in [
            "members", "leader", "follower", "n1", "n2", "n3", "sessions",
        ] {
            top.shows(words).await?;
        }
        ensure!(!top.shown().contains("no answer"), "{}", top.shown());
        let follower = cluster.follower().await?;
        cluster.nodes[follower].kill()?;
        top.shows("no answer").await?;
        top.ends_with(b"q").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_listed_with_its_holder_and_opened_with_its_history() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let client = cluster.client()?;
        let claim = |key: &str, owner: &str| client.lease(key).owner(owner).claim();
        let Claimed::Granted(over) = client.execute(claim("report", "first-owner")?).await? else {
            bail!("nobody else is there");
        };
        let (key, token) = (&over.key, over.fencing_token);
        client.lease_release(key, &over.lease_token, token).await?;
        client.execute(claim("report", "second-owner")?).await?;

        let mut top = Terminal::start(&endpoints(cluster))?;
        top.shows("sessions").await?;
        top.press(b"2")?;
        for words in ["REMAINING", "report", "second-owner"] {
            top.shows(words).await?;
        }
        ensure!(!top.shown().contains("first-owner"), "it is over");
        top.press(b"\r")?;
        for words in ["REASON", "first-owner", "released"] {
            top.shows(words).await?;
        }
        top.ends_with(b"q").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_it_says_so_and_ctrl_c_ends_it() -> Result<()> {
    let nobody = format!("127.0.0.1:{}", quorate_tests::process::free_port());
    let top = Terminal::start(&nobody)?;
    top.shows("asking").await?;
    top.shows("failed:").await?;
    top.ends_with(&[3]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_the_terminal_as_it_was() -> Result<()> {
    let nobody = format!("127.0.0.1:{}", quorate_tests::process::free_port());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let top = Terminal::start(&nobody)?;
        top.shows("asking").await?;
        top.ends_by(signal).await?;
    }
    Ok(())
}

#[test]
fn where_there_is_no_terminal_it_says_what_to_use() -> Result<()> {
    let mut top = Command::new(quorate(NODE));
    let output = top.arg("top").stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}", output.status);
    ensure!(stderr.contains("quorate status -o json"), "{stderr}");
    ensure!(output.stdout.is_empty(), "nothing is drawn");
    Ok(())
}
