//! The tables in Markdown, between two marks of a document that is otherwise written by hand.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::record::{self, Call, Conditions, Registry, Store, System, Test, Turn};
use crate::summary::{Calls, Median, Summary};
use crate::targets;

/// Begin and end of the operations and of many leases.
const MARKS: [&str; 2] = [
    "<!-- written by make bench: begin -->",
    "<!-- written by make bench: end -->",
];
/// Begin and end of contended locks, which can be measured by themselves.
const LOCK_MARKS: [&str; 2] = [
    "<!-- locks, written by make bench: begin -->",
    "<!-- locks, written by make bench: end -->",
];
/// Begin and end of lash's process registry.
const PROCESS_MARKS: [&str; 2] = [
    "<!-- lash, written by make bench: begin -->",
    "<!-- lash, written by make bench: end -->",
];
/// Begin and end of lash's session stores.
const SESSION_MARKS: [&str; 2] = [
    "<!-- sessions, written by make bench: begin -->",
    "<!-- sessions, written by make bench: end -->",
];
/// Others may use so much of a processor before a run is called noisy: the idle nodes of the other
/// system are among them.
const OTHERS_MAX: f64 = 0.3;

/// lash's store on SQLite, the version in Cargo.toml, and how it opens its databases: its conn.rs
/// and schema.rs set both, and no option changes them.
const SQLITE: &str = "lash-sqlite-store 0.1.0-alpha.80, journal_mode WAL, synchronous NORMAL";
/// What those who compare session stores must know.
const SESSION_NOTES: &str = "\
**SQLite is not as durable as the others here.** Its store sets `synchronous = NORMAL` and has no \
option for it: nothing is synced at a commit, only at a checkpoint of the log, by default every \
1,000 pages. What was answered survives a crash of the process; the commits since the last \
checkpoint may be lost with a crash of the machine. Each session has a database and a thread of \
its own in the benchmark's process, without a network. A ratio to SQLite compares costs, not the \
same promise.

Both of lash's own stores count all nodes of a session in each commit, which takes longer the more \
of them there are: the last column has them in the order Quorate / PostgreSQL / SQLite.";

/// Arguments of `table`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Records of one or more runs
    pub results: Vec<PathBuf>,
    /// Written to stdout if not given
    #[arg(long)]
    pub document: Option<PathBuf>,
}

/// Writes the tables.
pub fn run(args: &Args) -> Result<()> {
    let mut records = Vec::new();
    for path in &args.results {
        records.extend(record::read(path)?);
    }
    let summary = Summary::new(records);
    let mut sections = Vec::new();
    if summary.has_points() {
        sections.push((MARKS, tables(&summary)?));
    }
    if summary.has_locks() {
        sections.push((LOCK_MARKS, lock_tables(&summary)?));
    }
    if !summary.processes.is_empty() {
        sections.push((PROCESS_MARKS, process_table(&summary)?));
    }
    if !summary.sessions.is_empty() {
        sections.push((SESSION_MARKS, session_table(&summary)?));
    }
    let Some(path) = &args.document else {
        sections.iter().for_each(|(_, text)| print!("{text}"));
        return Ok(());
    };
    let mut document = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    for (marks, text) in &sections {
        document = between_marks(&document, *marks, text)?;
    }
    Ok(std::fs::write(path, document)?)
}

/// `document` with `tables` for what was between the marks.
fn between_marks(document: &str, [begin, end]: [&str; 2], tables: &str) -> Result<String> {
    let (before, rest) = document
        .split_once(begin)
        .with_context(|| format!("no line {begin}"))?;
    let (_, after) = rest
        .split_once(end)
        .with_context(|| format!("no line {end}"))?;
    Ok(format!("{before}{begin}\n\n{tables}\n{end}{after}"))
}

fn tables(summary: &Summary) -> Result<String> {
    let mut text = String::new();
    let conditions = summary
        .conditions
        .as_ref()
        .context("no conditions among the records")?;
    write_conditions(&mut text, conditions, summary)?;
    write_comparison(&mut text, summary)?;
    write_commands(&mut text, summary)?;
    write_scale(&mut text, summary)?;
    write_targets(&mut text, summary)?;
    Ok(text)
}

fn write_conditions(text: &mut String, at: &Conditions, summary: &Summary) -> Result<()> {
    let (median, worst) = summary.others().unwrap_or_default();
    if at.load > at.cores as f64 || median > OTHERS_MAX {
        writeln!(
            text,
            "> **Noisy run.** Others used {median:.2} cores beside the median point, {worst:.2} \
             beside the worst, of {};\n> the load average before the run was {:.1}. The ratios are \
             rough, the absolute numbers mean nothing.\n",
            at.cores, at.load
        )?;
    }
    writeln!(
        text,
        "- {}, commit `{}`, etcd {}",
        at.date, at.commit, at.etcd
    )?;
    writeln!(
        text,
        "- {} cores of {}, {} MiB, Linux {}; load average before the run {:.2}; others used \
         {median:.2} cores beside the median point, {worst:.2} beside the worst",
        at.cores, at.cpu_model, at.memory_mib, at.kernel, at.load
    )?;
    writeln!(
        text,
        "- disk: {:.0} appends a second with an fdatasync each, by one thread; p50 {} µs, \
         p99 {} µs",
        at.syncs_per_second, at.sync_p50_us, at.sync_p99_us
    )?;
    writeln!(
        text,
        "- {} s a point, medians of {} rounds\n",
        at.seconds, at.rounds
    )?;
    Ok(())
}

fn write_comparison(text: &mut String, summary: &Summary) -> Result<()> {
    writeln!(text, "### Side by side\n")?;
    writeln!(
        text,
        "| test | clients | Quorate ops/s (range) | etcd ops/s (range) | ratio \
         | Quorate p50 / p99 ms | etcd p50 / p99 ms | Quorate CPU µs/op | etcd CPU µs/op | errors |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    for test in Test::ALL {
        for clients in summary.clients() {
            let of = |system| summary.median(system, test, clients, 0);
            if let (Some(ours), Some(etcd)) = (of(System::Quorate), of(System::Etcd)) {
                write_row(text, test, clients, &ours, &etcd)?;
            }
        }
    }
    Ok(())
}

fn write_row(
    text: &mut String,
    test: Test,
    clients: u32,
    ours: &Median,
    etcd: &Median,
) -> Result<()> {
    let rate = |of: &Median| {
        format!(
            "{:.0} ({:.0}–{:.0})",
            of.ops_per_second, of.range.0, of.range.1
        )
    };
    let cpu = |of: &Median| of.cpu.nodes * 1e6 / of.ops_per_second.max(1.0);
    writeln!(
        text,
        "| {} | {clients} | {} | {} | **{:.2}** | {} | {} | {:.0} | {:.0} | {} / {} |",
        test.as_str(),
        rate(ours),
        rate(etcd),
        ours.ops_per_second / etcd.ops_per_second.max(1.0),
        latencies(ours),
        latencies(etcd),
        cpu(ours),
        cpu(etcd),
        ours.errors,
        etcd.errors,
    )?;
    Ok(())
}

fn latencies(of: &Median) -> String {
    format!("{:.2} / {:.2}", of.p50_us / 1_000.0, of.p99_us / 1_000.0)
}

/// Operations differ in how many commands they take; the log does not care.
fn write_commands(text: &mut String, summary: &Summary) -> Result<()> {
    writeln!(
        text,
        "\n### Durable commands of Quorate, and who used the processors\n"
    )?;
    writeln!(
        text,
        "| test | clients | commands/s | cores of the nodes | cores of the clients |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|")?;
    for test in Test::ALL.into_iter().filter(|test| test.commands() > 0) {
        for clients in summary.clients() {
            let Some(ours) = summary.median(System::Quorate, test, clients, 0) else {
                continue;
            };
            let commands = ours.ops_per_second * f64::from(test.commands());
            let (nodes, loaders) = (ours.cpu.nodes, ours.cpu.clients);
            writeln!(
                text,
                "| {} | {clients} | {commands:.0} | {nodes:.2} | {loaders:.2} |",
                test.as_str()
            )?;
        }
    }
    Ok(())
}

fn write_scale(text: &mut String, summary: &Summary) -> Result<()> {
    if summary.memory.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n### Many live leases\n")?;
    writeln!(
        text,
        "| | live leases | made a second | resident MB of each node |"
    )?;
    writeln!(text, "|---|---:|---:|---|")?;
    for memory in &summary.memory {
        let mb = |kib: &u64| format!("{:.0}", *kib as f64 * 1_024.0 / 1e6);
        let nodes: Vec<String> = memory.nodes_kib.iter().map(mb).collect();
        let (name, rate) = (name(memory.system), memory.leases_per_second);
        writeln!(
            text,
            "| {name} | {} | {rate:.0} | {} |",
            memory.leases,
            nodes.join(", ")
        )?;
    }
    writeln!(
        text,
        "\n| live leases beside | clients | lock cycles/s | p50 / p99 ms |"
    )?;
    writeln!(text, "|---:|---:|---:|---:|")?;
    for (leases, clients) in summary.beside() {
        let point = summary.median(System::Quorate, Test::Lock, clients, leases);
        if let Some(point) = point {
            let (rate, times) = (point.ops_per_second, latencies(&point));
            writeln!(text, "| {leases} | {clients} | {rate:.0} | {times} |")?;
        }
    }
    Ok(())
}

/// Contended locks: how often and how evenly one changes hands, and what names leave behind.
fn lock_tables(summary: &Summary) -> Result<String> {
    let mut text = String::new();
    let conditions = summary.conditions.as_ref();
    let conditions = conditions.context("no conditions among the records")?;
    write_conditions(&mut text, conditions, summary)?;
    writeln!(
        text,
        "| | clients on one lock | hand-overs a second (range) | Jain's index, worst round \
         | least / most of a client | ratio |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|")?;
    for clients in summary.contenders() {
        let etcd = summary.contended(System::Etcd, clients);
        for system in [System::Quorate, System::Etcd] {
            let Some(of) = summary.contended(system, clients) else {
                continue;
            };
            let ratio = etcd.as_ref().map(|etcd| of.per_second / etcd.per_second);
            writeln!(
                text,
                "| {} | {clients} | {:.0} ({:.0}–{:.0}) | {:.4} | {:.0} / {:.0} | {} |",
                name(system),
                of.per_second,
                of.range.0,
                of.range.1,
                of.jain,
                of.least,
                of.most,
                ratio.map_or(String::new(), |ratio| format!("**{ratio:.2}**")),
            )?;
        }
    }
    for names in &summary.names {
        let mb = |kib: &u64| format!("{:.0}", *kib as f64 * 1_024.0 / 1e6);
        let list = |all: &[u64]| all.iter().map(mb).collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "\n{} lock names, each acquired and released once ({:.0} a second): resident MB of \
             each node {} before, {} after.",
            names.names,
            names.per_second,
            list(&names.before_kib),
            list(&names.after_kib),
        )?;
    }
    Ok(text)
}

/// Where and how lash's stores were measured, beside `others`.
fn write_lash_conditions(text: &mut String, summary: &Summary, others: &str) -> Result<()> {
    let at = summary.conditions.as_ref();
    let at = at.context("no conditions among the records")?;
    writeln!(
        text,
        "- {}, commit `{}`, {others}; {} cores of {}; load average before the run {:.2}; disk: \
         {:.0} appends a second with an fdatasync each; {} s a point, medians of {} rounds\n",
        at.date,
        at.commit,
        at.cores,
        at.cpu_model,
        at.load,
        at.syncs_per_second,
        at.seconds,
        at.rounds
    )?;
    Ok(())
}

fn calls_rate(of: &Calls) -> String {
    format!("{:.0} ({:.0}–{:.0})", of.per_second, of.range.0, of.range.1)
}

fn calls_times(of: &Calls) -> String {
    format!("{:.2} / {:.2}", of.p50_us / 1e3, of.p99_us / 1e3)
}

/// lash's process registry, ours beside its own on PostgreSQL.
fn process_table(summary: &Summary) -> Result<String> {
    let mut text = String::new();
    let version = summary.processes.first().map(|it| it.version.as_str());
    write_lash_conditions(&mut text, summary, version.unwrap_or_default())?;
    writeln!(
        text,
        "| call | tasks | Quorate calls/s (range) | PostgreSQL calls/s (range) | ratio \
         | Quorate p50 / p99 ms | PostgreSQL p50 / p99 ms |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|---:|")?;
    for call in Call::ALL {
        for tasks in summary.tasks() {
            let of = |registry| summary.calls(registry, call, tasks);
            if let (Some(ours), Some(theirs)) = (of(Registry::Quorate), of(Registry::Postgres)) {
                writeln!(
                    text,
                    "| {} | {tasks} | {} | {} | **{:.2}** | {} | {} |",
                    call.as_str(),
                    calls_rate(&ours),
                    calls_rate(&theirs),
                    ours.per_second / theirs.per_second.max(1.0),
                    calls_times(&ours),
                    calls_times(&theirs)
                )?;
            }
        }
    }
    Ok(text)
}

/// lash's session stores, ours beside its own on PostgreSQL and SQLite.
fn session_table(summary: &Summary) -> Result<String> {
    let mut text = String::new();
    let postgres = summary.sessions.first().map(|it| it.postgres.as_str());
    let others = format!("{}; {SQLITE}", postgres.unwrap_or_default());
    write_lash_conditions(&mut text, summary, &others)?;
    writeln!(
        text,
        "| turn | sessions | Quorate turns/s (range) | PostgreSQL turns/s (range) \
         | SQLite turns/s (range) | ratio to PostgreSQL | ratio to SQLite | Quorate p50 / p99 ms \
         | PostgreSQL p50 / p99 ms | SQLite p50 / p99 ms | nodes of a session at the end |"
    )?;
    writeln!(text, "|---|{}", "---:|".repeat(10))?;
    for turn in Turn::ALL {
        for sessions in summary.sessions_at_a_time() {
            let [ours, postgres, sqlite] =
                Store::ALL.map(|store| summary.turns(store, turn, sessions));
            if let (Some(ours), Some(postgres), Some(sqlite)) = (ours, postgres, sqlite) {
                write_turns(&mut text, (turn, sessions), [ours, postgres, sqlite])?;
            }
        }
    }
    writeln!(text, "\n{SESSION_NOTES}")?;
    Ok(text)
}

/// Rates and nodes in the order of [`Store::ALL`].
fn write_turns(
    text: &mut String,
    (turn, sessions): (Turn, u32),
    of: [(Calls, f64); 3],
) -> Result<()> {
    let rates = of.each_ref().map(|(calls, _)| calls_rate(calls));
    let times = of.each_ref().map(|(calls, _)| calls_times(calls));
    let nodes = of.each_ref().map(|(_, nodes)| format!("{nodes:.0}"));
    let [ours, postgres, sqlite] = of.map(|(calls, _)| calls.per_second.max(1.0));
    writeln!(
        text,
        "| {} | {sessions} | {} | **{:.2}** | **{:.2}** | {} | {} |",
        turn.as_str(),
        rates.join(" | "),
        ours / postgres,
        ours / sqlite,
        times.join(" | "),
        nodes.join(" / "),
    )?;
    Ok(())
}

fn name(system: System) -> &'static str {
    match system {
        System::Quorate => "Quorate",
        System::Etcd => "etcd",
    }
}

fn write_targets(text: &mut String, summary: &Summary) -> Result<()> {
    writeln!(text, "\n### Targets\n")?;
    writeln!(text, "| what | target | measured | |")?;
    writeln!(text, "|---|---|---|---|")?;
    for target in targets::all(summary) {
        let met = if target.met { "met" } else { "**missed**" };
        writeln!(
            text,
            "| {} | {} | {} | {met} |",
            target.what, target.wanted, target.measured
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, Sessions};

    fn turns(store: Store, sessions: u32, round: u32, per_second: f64) -> Record {
        Record::Sessions(Sessions {
            store,
            postgres: String::new(),
            turn: Turn::Queued,
            sessions,
            round,
            per_second,
            p50_us: 1_000,
            p99_us: 2_000,
            nodes: 10.0,
        })
    }

    #[test]
    fn a_row_of_sessions_is_the_medians_of_all_three_stores() {
        let mut records = vec![turns(Store::Quorate, 64, 0, 1.0)];
        for (round, rate) in (0..).zip([300.0, 100.0, 200.0]) {
            records.push(turns(Store::Quorate, 16, round, rate));
            records.push(turns(Store::Postgres, 16, round, 100.0));
            records.push(turns(Store::Sqlite, 16, round, 400.0));
        }
        let summary = Summary::new(records);
        assert!(summary.turns(Store::Quorate, Turn::Commit, 16).is_none());
        let of = Store::ALL.map(|store| summary.turns(store, Turn::Queued, 16));
        let mut row = String::new();
        let of = of.map(|turns| turns.expect("measured"));
        write_turns(&mut row, (Turn::Queued, 16), of).expect("it is a string");
        assert_eq!(
            row,
            "| enqueue + claim + commit | 16 | 200 (100–300) | 100 (100–100) | 400 (400–400) \
             | **2.00** | **0.50** | 1.00 / 2.00 | 1.00 / 2.00 | 1.00 / 2.00 | 10 / 10 / 10 |\n"
        );
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let old = format!("above\n{begin}\nold\n{end}\nbelow\n");
        let new = between_marks(&old, MARKS, "new\n").expect("both marks");
        assert_eq!(new, format!("above\n{begin}\n\nnew\n\n{end}\nbelow\n"));
        assert_eq!(
            between_marks(&new, MARKS, "new\n").expect("both marks"),
            new
        );
        between_marks("above\nbelow\n", MARKS, "new\n").expect_err("no marks");
    }
}
