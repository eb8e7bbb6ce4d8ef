//! `quorate recover`: a new cluster of what is left of one that lost its quorum for good.

use quorate_node::disaster::{self, Plan};
use quorate_node::raft::LogId;
use serde::Serialize;

use super::confirm::confirm;
use super::made::{self, Made};
use super::progress::Progress;
use crate::args::recover::Recover;
use crate::exit::Failure;
use crate::output::Printer;
use crate::value::time;

/// Says what may be lost, asks, and makes the new cluster's first member.
pub fn run(args: &Recover, mut printer: Printer) -> Result<(), Failure> {
    made::check(&args.first)?;
    let plan = disaster::plan(&args.from).map_err(|error| made::refused(&error))?;
    let index = plan.first_index(args.first.tokens_above);
    let index = index.map_err(|error| made::refused(&error))?;
    let shown = Shown::new(&plan, index);
    if args.dry_run {
        return Ok(printer.value(&shown, &shown.text())?);
    }
    eprintln!("{}", shown.text());
    confirm(args.yes, "gives up what only the lost members have")?;
    let old_cluster_id = plan.from().identity.cluster_id.clone();
    let mut progress = Progress::new("took over");
    let recovered = plan.recover(&args.first.wanted(), &mut |rows, entries| {
        progress.tell(|| format!("{rows} rows, {entries} log entries"));
    });
    progress.end();
    let recovered = recovered.map_err(|error| made::refused(&error))?;
    let made = Made::new(
        &args.first.data_dir,
        &recovered.identity,
        recovered.tokens_above,
        old_cluster_id,
    );
    Ok(printer.value(&made, &made.text())?)
}

/// What is there, and what follows from it.
#[derive(Serialize)]
struct Shown {
    cluster_id: String,
    voters: usize,
    missing: Vec<Member>,
    given: Vec<Given>,
    last_time: String,
    #[serde(skip)]
    first_unknown: u64,
    tokens_above: String,
}

#[derive(Serialize)]
struct Member {
    id: String,
    name: String,
}

/// A directory, and how far its member is.
#[derive(Serialize)]
struct Given {
    data_dir: String,
    id: String,
    name: String,
    last_index: String,
    last_term: String,
    committed_index: String,
}

impl Shown {
    fn new(plan: &Plan, tokens_above: u64) -> Self {
        let from = plan.from();
        let standing = &from.standing;
        let given = plan.survivors.iter().map(|survivor| {
            let LogId { leader_id, index } = survivor.standing.last;
            Given {
                data_dir: survivor.path.display().to_string(),
                id: survivor.identity.node_id.to_string(),
                name: survivor.identity.name.clone(),
                last_index: index.to_string(),
                last_term: leader_id.term.to_string(),
                committed_index: survivor.standing.committed.index.to_string(),
            }
        });
        let missing = plan.missing.iter().map(|(id, name)| Member {
            id: id.to_string(),
            name: name.clone(),
        });
        Self {
            cluster_id: from.identity.cluster_id.clone(),
            voters: plan.voters,
            missing: missing.collect(),
            given: given.collect(),
            last_time: time(standing.last_time),
            first_unknown: standing.committed.index + 1,
            tokens_above: tokens_above.to_string(),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "cluster {} has {} voters, {} of them are not here: {}",
            self.cluster_id,
            self.voters,
            self.missing.len(),
            names(&self.missing)
        )];
        for given in &self.given {
            lines.push(format!(
                "{}: node {} ({}), last entry {} of term {}, known to be committed up to {}",
                given.data_dir,
                given.id,
                given.name,
                given.last_index,
                given.last_term,
                given.committed_index
            ));
        }
        let from = &self.given[0];
        lines.push(format!(
            "all is taken from {}, the most advanced; its last entry is of {}",
            from.data_dir, self.last_time
        ));
        lines.push(format!(
            "lost: every write behind entry {} that was acknowledged by members that are not here; \
             how many there are, nobody here can know",
            from.last_index
        ));
        if from.last_index != from.committed_index {
            lines.push(format!(
                "done from here on: entries {} to {}, also those that were never acknowledged",
                self.first_unknown, from.last_index
            ));
        }
        lines.push(format!(
            "never to run again: {}; they would go on as the old cluster",
            names(&self.missing)
        ));
        lines.push(format!(
            "tokens of the new cluster are greater than {}",
            self.tokens_above
        ));
        lines.join("\n")
    }
}

fn names(members: &[Member]) -> String {
    let names = members
        .iter()
        .map(|Member { id, name }| format!("{id} ({name})"));
    names.collect::<Vec<_>>().join(", ")
}
