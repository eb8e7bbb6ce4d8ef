//! `quorate lock run`, the real program against real nodes: who may run when, what a command sees,
//! how it is ended, and with which exit code.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_client::statemachine::Name;
use quorate_client::statemachine::lock::Waiters;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::program;
use quorate_tests::wait::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn quorate() -> &'static Path {
    program::quorate(NODE)
}

/// Runs of the program in one directory, where their commands leave marks for each other.
struct Runs {
    dir: PathBuf,
    endpoints: String,
    client: Client,
}

/// One run. Dropping it kills it.
struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Runs {
    fn new(cluster: &Cluster) -> Result<Self> {
        let dir = cluster.dir().join("runs");
        fs::create_dir(&dir)?;
        Ok(Self {
            dir,
            endpoints: cluster.all_endpoints().join(","),
            client: cluster.client()?,
        })
    }

    /// `quorate lock run ARGS -- sh -c SCRIPT`, in a process group of its own, as a shell's job is.
    fn start(&self, name: &str, args: &str, script: &str) -> Result<Running> {
        self.start_command(name, args, &["sh", "-c", script])
    }

    fn start_command(&self, name: &str, args: &str, command: &[&str]) -> Result<Running> {
        let stdout = self.dir.join(format!("{name}.stdout"));
        let stderr = self.dir.join(format!("{name}.stderr"));
        let child = Command::new(quorate())
            .args(["lock", "run"])
            .args(args.split_whitespace())
            .arg("--")
            .args(command)
            .current_dir(&self.dir)
            .env("QUORATE_ENDPOINTS", &self.endpoints)
            .env("QUORATE", quorate())
            .env_remove("QUORATE_LOCK_OWNER")
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .process_group(0)
            .spawn()?;
        Ok(Running {
            child,
            stdout,
            stderr,
        })
    }

    /// Runs to the end.
    async fn run(&self, name: &str, args: &str, script: &str) -> Result<Over> {
        self.start(name, args, script)?.over().await
    }

    fn mark(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.dir.join(name), "")?)
    }

    /// Waits for what a command writes into a file, up to the line's end.
    async fn line(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        until(&format!("a line in {name}"), PATIENCE, async || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Ok(text.ends_with('\n').then(|| text.trim().to_owned()))
        })
        .await
    }

    async fn waiters(&self, key: &str) -> Result<usize> {
        let waiters = Waiters {
            key: Name::parse("key", key)?,
            after: None,
            limit: 0,
        };
        Ok(self.client.lock_waiters(waiters).await?.rows.len())
    }

    async fn waited_for(&self, key: &str) -> Result<()> {
        until("a run to wait", PATIENCE, async || {
            Ok((self.waiters(key).await? > 0).then_some(()))
        })
        .await
    }

    async fn is_idle(&self, key: &str) -> Result<bool> {
        let key = Name::parse("key", key)?;
        Ok(self.client.lock_get(&key).await?.is_none())
    }
}

/// How a run ended.
struct Over {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Over {
    /// Fails unless the run ended so, with these words on stderr.
    fn with(&self, code: i32, words: &[&str]) -> Result<()> {
        let Self { status, stderr, .. } = self;
        ensure!(
            status.code() == Some(code),
            "{status}, wanted {code}: {stderr}"
        );
        for word in words {
            ensure!(stderr.contains(word), "{word:?} is not in: {stderr}");
        }
        Ok(())
    }
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    async fn over(mut self) -> Result<Over> {
        let status = until("the run to end", PATIENCE, async || {
            Ok(self.child.try_wait()?)
        })
        .await?;
        Ok(Over {
            status,
            stdout: fs::read_to_string(&self.stdout)?,
            stderr: fs::read_to_string(&self.stderr)?,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; what it ran ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(text: &str) -> Result<Pid> {
    Pid::from_raw(text.parse()?).context("a pid is not 0")
}

async fn gone(pid: Pid) -> Result<()> {
    until("a process to be gone", PATIENCE, async || {
        Ok(test_kill_process(pid).is_err().then_some(()))
    })
    .await
}

async fn with_runs(nodes: usize, body: impl AsyncFnOnce(&Runs) -> Result<()>) -> Result<()> {
    quorate();
    scenario(Options::new(NODE, nodes), async |cluster| {
        body(&Runs::new(cluster)?).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_runs_after_the_first() -> Result<()> {
    with_runs(3, async |runs| {
        let first = "echo first $QUORATE_FENCING_TOKEN >> log; echo > began; \
                     until [ -e go ]; do sleep 0.02; done; echo over >> log";
        let first = runs.start("first", "k", first)?;
        runs.line("began").await?;
        let second = runs.start("second", "k", "echo second $QUORATE_FENCING_TOKEN >> log")?;
        runs.waited_for("k").await?;
        runs.mark("go")?;
        first.over().await?.with(0, &[])?;
        second.over().await?.with(0, &[])?;
        let log = runs.line("log").await?;
        let words: Vec<&str> = log.split_whitespace().collect();
        ensure!(
            matches!(words[..], ["first", _, "over", "second", _]),
            "they ran as {words:?}"
        );
        let tokens = [words[1].parse::<u64>()?, words[4].parse()?];
        ensure!(tokens[0] < tokens[1], "the tokens are {tokens:?}");
        ensure!(runs.is_idle("k").await?, "the lock is not free at the end");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_takes_its_command_along_and_the_next_runs_after_the_ttl() -> Result<()> {
    with_runs(3, async |runs| {
        let ttl = Duration::from_secs(3);
        let script = "sleep 1000 & echo $$ $! > pids; wait";
        let mut first = runs.start("first", "k --ttl 3s", script)?;
        let pids = runs.line("pids").await?;
        let alive = "for pid in $(cat pids); do kill -0 $pid 2>/dev/null && echo $pid; done; true";
        let second = runs.start("second", "k", alive)?;
        runs.waited_for("k").await?;
        first.child.kill()?;
        first.child.wait()?;
        let killed = Instant::now();
        for text in pids.split_whitespace() {
            gone(pid(text)?).await?;
        }
        let second = second.over().await?;
        second.with(0, &[])?;
        // The last renewal was a third of the TTL before at most.
        let waited = killed.elapsed();
        ensure!(waited >= ttl / 2, "the next got the lock after {waited:?}");
        ensure!(second.stdout.is_empty(), "still alive: {}", second.stdout);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_that_of_the_command() -> Result<()> {
    with_runs(1, async |runs| {
        let over = runs
            .run("own", "k", "echo data; echo word >&2; exit 7")
            .await?;
        over.with(7, &[])?;
        ensure!(
            (over.stdout.as_str(), over.stderr.as_str()) == ("data\n", "word\n"),
            "stdout {:?}, stderr {:?}",
            over.stdout,
            over.stderr
        );
        runs.run("signal", "k", "kill -KILL $$")
            .await?
            .with(137, &[])?;
        let none = runs.start_command("none", "k", &["no-such-command-here"])?;
        none.over().await?.with(127, &["no-such-command-here"])?;
        let bad = runs.start_command("bad", "k", &["/"])?;
        bad.over().await?.with(126, &["cannot run \"/\""])?;
        ensure!(runs.is_idle("k").await?, "the lock is not free at the end");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_its_lock() -> Result<()> {
    with_runs(1, async |runs| {
        let script = "echo $QUORATE_LOCK_KEY $QUORATE_FENCING_TOKEN $QUORATE_LOCK_OWNER > seen; \
                      $QUORATE lock get jobs/a -o json";
        let over = runs
            .run("run", "jobs/a --owner me --ttl 20s", script)
            .await?;
        over.with(0, &[])?;
        let seen = runs.line("seen").await?;
        let seen: Vec<&str> = seen.split(' ').collect();
        ensure!(
            seen[0] == "jobs/a" && seen[2].starts_with("me/"),
            "{seen:?}"
        );
        for field in [
            "\"key\":\"jobs/a\"".to_owned(),
            format!("\"fencing_token\":\"{}\"", seen[1]),
            "\"owner_id\":\"me\"".to_owned(),
            "\"ttl_ms\":\"20000\"".to_owned(),
            "\"command\":\"sh\"".to_owned(),
        ] {
            ensure!(
                over.stdout.contains(&field),
                "{field} is not in {}",
                over.stdout
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_to_be_had_is_exit_code_4() -> Result<()> {
    with_runs(1, async |runs| {
        let script = "echo > held; until [ -e go ]; do sleep 0.02; done";
        let holder = runs.start("holder", "k --owner me", script)?;
        runs.line("held").await?;
        let busy = runs.run("busy", "k --wait 0s", "touch ran").await?;
        busy.with(4, &["lock \"k\" is held by \"me\" with fencing token"])?;
        let late = runs
            .run("late", "k --wait 300ms -o json", "touch ran")
            .await?;
        late.with(4, &["{\"error\":{\"code\":\"busy\"", "not granted within"])?;
        ensure!(
            late.stderr.lines().count() == 1,
            "more than JSON: {}",
            late.stderr
        );
        ensure!(!runs.dir.join("ran").exists(), "a command ran");
        ensure!(runs.waiters("k").await? == 0, "somebody waits still");
        runs.mark("go")?;
        holder.over().await?.with(0, &[])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_goes_to_the_command_and_the_lock_is_released_after_it() -> Result<()> {
    with_runs(1, async |runs| {
        for (name, signal) in [
            ("TERM", Signal::TERM),
            ("INT", Signal::INT),
            ("HUP", Signal::HUP),
        ] {
            let script = format!(
                "trap 'echo {name} > got.{name}; exit 9' {name}; echo $$ > ready.{name}; \
                 while :; do sleep 0.02; done"
            );
            let run = runs.start(name, "k --ttl 1h", &script)?;
            runs.line(&format!("ready.{name}")).await?;
            run.signal(signal)?;
            run.over().await?.with(9, &[])?;
            ensure!(
                runs.line(&format!("got.{name}")).await? == name,
                "not passed on"
            );
            ensure!(
                runs.is_idle("k").await?,
                "the lock is not free after {name}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_wait_leaves_the_queue_and_runs_nothing() -> Result<()> {
    with_runs(1, async |runs| {
        let guard = runs.client.lock("k").owner("me").try_acquire().await?;
        let waits = runs.start("waits", "k --ttl 1h", "touch ran")?;
        runs.waited_for("k").await?;
        waits.signal(Signal::TERM)?;
        waits.over().await?.with(143, &[])?;
        ensure!(runs.waiters("k").await? == 0, "it waits still");
        ensure!(!runs.dir.join("ran").exists(), "the command ran");
        guard.release().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_ends_the_command_and_all_that_it_started() -> Result<()> {
    with_runs(1, async |runs| {
        // One child takes no hint, one has left its parents and its process group.
        let script = "trap 'echo asked > asked' TERM; \
                      sh -c 'trap \"\" TERM; while :; do sleep 0.02; done' & deaf=$!; \
                      (setsid sleep 1000 & echo $! > far); \
                      echo $$ $deaf $(cat far) > pids; while :; do sleep 0.02; done";
        let run = runs.start("run", "k --ttl 1h --kill-after 500ms", script)?;
        let pids = runs.line("pids").await?;
        ensure!(pids.split_whitespace().count() == 3, "they are {pids}");
        let key = Name::parse("key", "k")?;
        runs.client.lock_revoke(&key, None, "ops").await?;
        let over = run.over().await?;
        over.with(5, &["lock \"k\" was lost: it was revoked by \"ops\""])?;
        ensure!(
            runs.line("asked").await? == "asked",
            "it was not asked to end"
        );
        for text in pids.split_whitespace() {
            ensure!(
                test_kill_process(pid(text)?).is_err(),
                "{text} is still there"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_outlives_its_lock_by_a_moment_is_exit_code_5() -> Result<()> {
    with_runs(1, async |runs| {
        let script = "$QUORATE lock release k --token $QUORATE_FENCING_TOKEN";
        let over = runs.run("run", "k --ttl 1h", script).await?;
        over.with(
            5,
            &["lock \"k\" was lost: somebody released it by its fencing token"],
        )
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_gone_ends_the_command_by_the_holders_own_clock() -> Result<()> {
    quorate();
    scenario(Options::new(NODE, 1), async |cluster| {
        let runs = Runs::new(cluster)?;
        let run = runs.start(
            "run",
            "k --ttl 2s --timeout 500ms",
            "echo $$ > pid; exec sleep 1000",
        )?;
        let command = pid(&runs.line("pid").await?)?;
        cluster.nodes[0].kill()?;
        let over = run.over().await?;
        cluster.nodes[0].start()?;
        over.with(
            5,
            &[
                "no renewal was confirmed within its time to live of 2s",
                "the command ended with exit code 143",
            ],
        )?;
        ensure!(
            test_kill_process(command).is_err(),
            "the command is still there"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_runs_in_opposite_order_are_told_of_the_deadlock() -> Result<()> {
    with_runs(1, async |runs| {
        let nested = |own: &str, other: &str| {
            let script = format!(
                "echo > {own}.held; until [ -e {other}.held ]; do sleep 0.02; done; \
                 exec $QUORATE lock run {other} -- true"
            );
            runs.start(own, &format!("{own} --owner of-{own}"), &script)
        };
        let (one, two) = (nested("a", "b")?, nested("b", "a")?);
        let over = [one.over().await?, two.over().await?];
        let mut codes = over.each_ref().map(|it| it.status.code());
        codes.sort_unstable();
        let words: Vec<&str> = over.iter().map(|it| it.stderr.as_str()).collect();
        ensure!(codes == [Some(0), Some(1)], "{codes:?}: {words:?}");
        let told = over
            .iter()
            .find(|it| it.status.code() == Some(1))
            .context("one")?;
        told.with(
            1,
            &[
                "would be a deadlock",
                "of-a waits for b",
                "of-b waits for a",
            ],
        )
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_was_ignored_stays_so_for_the_command() -> Result<()> {
    with_runs(1, async |runs| {
        let script = "trap '' HUP; exec \"$QUORATE\" lock run k -- sh -c \
                      'echo $PPID > ready; until [ -e go ]; do sleep 0.02; done; exit 3'";
        let mut nohup = Command::new("sh")
            .args(["-c", script])
            .current_dir(&runs.dir)
            .env("QUORATE_ENDPOINTS", &runs.endpoints)
            .env("QUORATE", quorate())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        runs.line("ready").await?;
        kill_process(Pid::from_child(&nohup), Signal::HUP)?;
        runs.mark("go")?;
        let status = until("it to end", PATIENCE, async || Ok(nohup.try_wait()?)).await?;
        ensure!(
            status.code() == Some(3) && status.signal().is_none(),
            "{status}"
        );
        Ok(())
    })
    .await
}
