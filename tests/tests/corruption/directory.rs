//! Directories of nodes that were stopped, with every kind of file in them, and copies of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use quorate_node::Config;
use quorate_statemachine::Command;
use quorate_statemachine::cluster::RecordDigest;
use quorate_tests::cluster::{Cluster, Options};
use quorate_tests::examine::{Ended, Examined, in_process};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX};

use super::NODE;

/// Few entries between snapshots, so that the log is purged and its beginning is gone.
pub fn options() -> Options {
    Options::new(NODE, 3).configure(|config| {
        config.raft.snapshot_entries = 400;
        config.raft.keep_entries = 150;
        config.verify.every_ms = 0;
    })
}

/// Every file under `dir`, by its path from there.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(dir.join(&inner))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a directory. Links between its files become files of their own.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().context("a file has a directory")?)?;
        fs::copy(from.join(&file), target)?;
    }
    Ok(())
}

/// The kind of a file: its path with its numbers left out.
pub fn kind(file: &Path) -> String {
    let mut kind = String::new();
    for letter in file.to_string_lossy().chars() {
        match letter {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            other => kind.push(other),
        }
    }
    kind
}

/// The directory of a stopped node as it was, and what it holds.
pub struct Pristine {
    /// How it was stopped.
    pub how: &'static str,
    dir: PathBuf,
    config: Config,
    /// Index behind the last entry that the node has acknowledged.
    pub acknowledged_end: u64,
    /// What it holds.
    pub holds: Examined,
}

impl Pristine {
    /// Copies the directory of a node that does not run.
    pub async fn of(cluster: &Cluster, node: usize, how: &'static str) -> Result<Self> {
        let config = cluster.nodes[node].config().clone();
        let dir = cluster.dir().join(how);
        copy(&config.node.data_dir, &dir)?;
        let stopped = quorate_node::storage::offline::Stopped::open(&config.node.data_dir)?;
        let mut pristine = Self {
            how,
            dir,
            config,
            acknowledged_end: stopped.log()?.acknowledged_end,
            holds: Examined::default(),
        };
        drop(stopped);
        let scratch = pristine.restore(&cluster.dir().join(format!("{how}-whole")))?;
        pristine.holds = match scratch.examine().await? {
            Ended::Read(found) => found,
            other => bail!("the directory is not whole: {other:?}"),
        };
        ensure!(pristine.holds.last + 1 >= pristine.acknowledged_end);
        Ok(pristine)
    }

    /// Its files, with their sizes.
    pub fn files(&self) -> Result<BTreeMap<PathBuf, u64>> {
        let size = |file: PathBuf| Ok((file.clone(), fs::metadata(self.dir.join(file))?.len()));
        files(&self.dir)?.into_iter().map(size).collect()
    }

    /// A copy to be damaged, at `to`, which must not exist.
    pub fn restore(&self, to: &Path) -> Result<Scratch> {
        copy(&self.dir, to)?;
        let mut config = self.config.clone();
        config.node.data_dir = to.to_owned();
        let file = to.with_extension("toml");
        fs::write(&file, toml::to_string(&config)?)?;
        Ok(Scratch {
            dir: to.to_owned(),
            config: file,
        })
    }
}

/// A copy of a directory. It goes away with this.
pub struct Scratch {
    /// Where it is.
    pub dir: PathBuf,
    /// The configuration of a node on it.
    config: PathBuf,
}

impl Scratch {
    /// Opens it as a node does, and reads all of it.
    pub async fn examine(&self) -> Result<Ended> {
        in_process(NODE, &self.config).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(&self.config);
    }
}

/// Sets a mark at which all members have the digest that is answered.
async fn mark(cluster: &Cluster) -> Result<(u64, String)> {
    let client = cluster.client()?.with_timeout(PATIENCE);
    let command = Command::from(RecordDigest {});
    let (index, _) = client.execute_command(command).await?;
    let leader = cluster.leader().await?;
    let address = cluster.nodes[leader].client_addr();
    let digest = cluster.admin()?.digest_at(address, index, PATIENCE).await?;
    Ok((index, digest.digest))
}

/// Two nodes that hold every kind of file, one killed and one stopped in order, while clients
/// write. What they hold is what the others hold.
pub async fn two_pristine(cluster: &mut Cluster) -> Result<[Pristine; 2]> {
    let load = Load::start(&cluster.all_endpoints(), 8).await?;
    load.more(300, RECOVERY_MAX).await?;
    // One restart makes a table of its log; a long absence makes it install a snapshot.
    let node = cluster.follower().await?;
    cluster.restart(node, |_| {}).await?;
    cluster.nodes[node].kill()?;
    load.more(1_200, RECOVERY_MAX).await?;
    cluster.nodes[node].start()?;
    cluster.caught_up(node).await?;
    cluster.restart(node, |_| {}).await?;
    load.more(500, RECOVERY_MAX).await?;
    let (index, digest) = mark(cluster).await?;
    cluster.caught_up(node).await?;
    cluster.nodes[node].kill()?;
    let killed = Pristine::of(cluster, node, "killed").await?;
    let found = killed.holds.digests.get(&index);
    let wrong = found.is_some_and(|found| *found != digest);
    ensure!(!wrong, "{found:?} at {index}, the others have {digest}");

    cluster.nodes[node].start()?;
    cluster.caught_up(node).await?;
    load.more(200, RECOVERY_MAX).await?;
    oracle::check_unfailing(cluster, load).await?;
    let (index, digest) = mark(cluster).await?;
    cluster.caught_up(node).await?;
    cluster.nodes[node].terminate().await?;
    let stopped = Pristine::of(cluster, node, "stopped").await?;
    ensure!(stopped.holds.last >= index, "it lacks the mark at {index}");
    let found = stopped.holds.digests.get(&index);
    let wrong = found.is_some_and(|found| *found != digest);
    ensure!(!wrong, "{found:?} at {index}, the others have {digest}");
    cluster.nodes[node].start()?;
    cluster.caught_up(node).await?;
    cluster.digests_agree().await?;
    Ok([killed, stopped])
}
