//! Damage of every kind to every kind of file: refused with words that say where and what to do, or
//! without any effect on what the node holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use futures::StreamExt;
use quorate_tests::cluster::scenario;
use quorate_tests::examine::Ended;
use quorate_tests::long_form;

use super::NODE;
use super::damage::Damage;
use super::directory::{Pristine, Scratch, kind, options, two_pristine};

/// What a refusal must tell an operator to do.
const ADVICE: &[&str] = &[
    "add it again with an empty directory",
    // The first byte of the identity is the version of the format.
    "start the build that wrote it, or a newer one",
];

/// Kinds of files of which every damage but one is told here, and whether some must be refused.
/// What is not listed is what RocksDB writes for people.
const KINDS: &[(&str, bool)] = &[
    ("LOCK", false),
    ("acked", true),
    ("current", true),
    ("identity", true),
    ("log/#.log", true),
    ("log/#.sst", true),
    ("log/CURRENT", true),
    ("log/IDENTITY", false),
    ("log/MANIFEST-#", true),
    ("log/OPTIONS-#", false),
    ("snapshots/#-#/#.sst", false),
    ("snapshots/#-#/CURRENT", false),
    ("snapshots/#-#/MANIFEST-#", false),
    ("snapshots/#-#/OPTIONS-#", false),
    ("snapshots/#-#/manifest", false),
    ("state-#/#.sst", true),
    ("state-#/CURRENT", true),
    ("state-#/IDENTITY", false),
    ("state-#/MANIFEST-#", true),
    ("state-#/OPTIONS-#", false),
];

/// Whether some damage to a file of this kind must be refused.
fn must_be_found(kind: &str) -> bool {
    KINDS.contains(&(kind, true))
}

/// One fault of one file.
struct Case<'a> {
    number: usize,
    pristine: &'a Pristine,
    file: PathBuf,
    damage: Damage,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Whole,
    /// The file had zeroes there anyway.
    Same,
}

fn cases<'a>(pristine: &'a Pristine, seed: u64) -> Result<Vec<Case<'a>>> {
    let (mut random, flips) = (Rng::with_seed(seed), long_form("QUORATE_DAMAGES", 0));
    let mut by_kind: BTreeMap<String, Vec<(PathBuf, u64)>> = BTreeMap::new();
    for (file, size) in pristine.files()? {
        by_kind.entry(kind(&file)).or_default().push((file, size));
    }
    let there: BTreeSet<&str> = by_kind.keys().map(String::as_str).collect();
    for (kind, _) in KINDS {
        ensure!(there.contains(kind), "no {kind} in {there:?}");
    }
    let mut cases = Vec::new();
    for mut files in by_kind.into_values() {
        if flips == 0 {
            // One of each kind, but two of those whose content is ours.
            random.shuffle(&mut files);
            let wanted = files[0].0.extension().is_some_and(|it| it == "sst");
            files.truncate(1 + usize::from(wanted));
        }
        for (file, size) in files {
            let mut all = Damage::of_file(size, flips.max(2), &mut random);
            if flips == 0 && !must_be_found(&kind(&file)) {
                // It matters little to the node: a part of them will do.
                random.shuffle(&mut all);
                all.truncate(3);
            }
            cases.extend(all.into_iter().map(|damage| Case {
                number: 0,
                pristine,
                file: file.clone(),
                damage,
            }));
        }
    }
    Ok(cases)
}

impl Case<'_> {
    async fn run(&self, dir: &Path) -> Result<Outcome> {
        let to = dir.join(format!("case-{}", self.number));
        let scratch = self.pristine.restore(&to)?;
        if !self.damage.inflict(&scratch.dir.join(&self.file))? {
            return Ok(Outcome::Same);
        }
        let ended = scratch.examine().await?;
        judge(self.pristine, &scratch, &self.file, ended)
    }

    fn what(&self) -> String {
        format!(
            "{} of a {} node, {}",
            self.file.display(),
            self.pristine.how,
            self.damage
        )
    }
}

/// Whether the node did what it must with a directory of which `file` is damaged.
fn judge(pristine: &Pristine, scratch: &Scratch, file: &Path, ended: Ended) -> Result<Outcome> {
    let found = match ended {
        Ended::Fell(words) => bail!("it fell: {words}"),
        Ended::Refused(words) => {
            check_words(&words, &scratch.dir, file)?;
            return Ok(Outcome::Refused);
        }
        Ended::Read(found) => found,
    };
    ensure!(
        found.last + 1 >= pristine.acknowledged_end,
        "it goes on with entry {}, but had acknowledged all before {}",
        found.last,
        pristine.acknowledged_end
    );
    let holds = &pristine.holds;
    ensure!(
        found.vote == holds.vote,
        "its vote is {}, it was {}",
        found.vote,
        holds.vote
    );
    let wanted = holds.digests.get(&found.last);
    let wanted = wanted.with_context(|| format!("it ends with entry {}", found.last))?;
    ensure!(
        found.digest()? == wanted,
        "at entry {} it has digest {}, the others have {wanted}",
        found.last,
        found.digest()?
    );
    Ok(Outcome::Whole)
}

/// It must name the damaged file or a directory that it is in, and what to do.
fn check_words(words: &str, dir: &Path, file: &Path) -> Result<()> {
    let top = file.iter().next().context("a file has a name")?;
    let near = dir.join(top).display().to_string();
    // The log knows how far it went, the purge mark how far the state did.
    let told_by_another = ["acked says that", "the state reaches entry"];
    let named = words.contains(&near)
        || words.contains(&dir.display().to_string())
            && told_by_another.iter().any(|known| words.contains(known));
    ensure!(named, "it does not say where: {words}");
    let told = ADVICE.iter().any(|advice| words.contains(advice));
    ensure!(told, "it does not say what to do: {words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_refused_or_of_no_effect() -> Result<()> {
    let seed = long_form("QUORATE_DAMAGE_SEED", fastrand::usize(..1_000_000_000)) as u64;
    println!("QUORATE_DAMAGE_SEED={seed}");
    scenario(options(), async |cluster| {
        let pristine = two_pristine(cluster).await?;
        let dir = cluster.dir().to_owned();
        cluster.kill_all()?;
        let mut all = cases(&pristine[0], seed)?;
        all.extend(cases(&pristine[1], seed + 1)?);
        for (number, case) in all.iter_mut().enumerate() {
            case.number = number;
        }
        let at_a_time = available_parallelism().map_or(2, usize::from);
        let dir = &dir;
        let runs = all
            .iter()
            .map(|case| async move { (case, case.run(dir).await) });
        let mut runs = futures::stream::iter(runs).buffer_unordered(at_a_time);
        let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
        while let Some((case, outcome)) = runs.next().await {
            match outcome {
                Ok(outcome) => *counts.entry((kind(&case.file), outcome)).or_insert(0) += 1,
                Err(error) => wrong.push(format!("{}: {error:#}", case.what())),
            }
        }
        drop(runs);
        for ((kind, outcome), count) in &counts {
            println!("{kind}: {count} {outcome:?}");
        }
        ensure!(
            wrong.is_empty(),
            "{} of {} cases: {wrong:#?}",
            wrong.len(),
            all.len()
        );
        for (kind, must) in KINDS.iter().filter(|(_, must)| *must) {
            let refused = counts.get(&((*kind).to_owned(), Outcome::Refused));
            ensure!(refused.is_some() == *must, "no damage to {kind} is refused");
        }
        planted_faults_are_found(&pristine[0], dir).await
    })
    .await
}

/// The test itself: a state that is another than the log says, a log without its end and its guard,
/// and words that say nothing must not pass.
async fn planted_faults_are_found(pristine: &Pristine, dir: &Path) -> Result<()> {
    let other = pristine.restore(&dir.join("planted"))?;
    let mut command = tokio::process::Command::new(NODE);
    command.arg(other.dir.with_extension("toml")).arg("plant");
    ensure!(command.status().await?.success(), "nothing was planted");
    let ended = other.examine().await?;
    let Err(error) = judge(pristine, &other, Path::new("log"), ended) else {
        bail!("another state passes for whole");
    };
    ensure!(error.to_string().contains("the others have"), "{error}");
    let mut shorter = pristine.holds.clone();
    shorter.last = pristine.acknowledged_end - 2;
    let Err(error) = judge(pristine, &other, Path::new("log"), Ended::Read(shorter)) else {
        bail!("a log without its end passes for whole");
    };
    ensure!(error.to_string().contains("had acknowledged"), "{error}");
    let vague = "error: something is wrong; add it again with an empty directory".to_owned();
    let judged = judge(pristine, &other, Path::new("log"), Ended::Refused(vague));
    ensure!(judged.is_err(), "words without a place pass");
    Ok(())
}
