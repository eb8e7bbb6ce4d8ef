//! What `quorate serve` writes to standard error, in both formats.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use quorate_tests::program::{Served, alone, quorate};
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// The lines of a node of its own, until it says that it runs.
fn lines_until_it_runs(format: &str) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let mut serve = Command::new(quorate(NODE));
    serve
        .args(alone(&dir.path().join("data")))
        .env("QUORATE_LOG__FORMAT", format)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut served = Served(serve.spawn()?);
    let stderr = served.0.stderr.take().context("it is piped")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines() {
        lines.push(line?);
        if lines.iter().any(|line| line.contains("the node runs")) {
            return Ok(lines);
        }
    }
    anyhow::bail!("it ended: {lines:?}")
}

#[test]
fn json_is_one_object_a_line_with_the_fields_of_the_event() -> Result<()> {
    let lines = lines_until_it_runs("json")?;
    for line in &lines {
        let event: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        for field in ["timestamp", "level", "target", "message"] {
            ensure!(event[field].is_string(), "no {field}: {line}");
        }
    }
    let last: Value = serde_json::from_str(lines.last().context("it said something")?)?;
    ensure!(last["message"] == "the node runs", "{last}");
    ensure!(last["member"].to_string().contains("127.0.0.1"), "{last}");
    Ok(())
}

#[test]
fn a_human_reads_text_without_colours_where_there_is_no_terminal() -> Result<()> {
    let lines = lines_until_it_runs("human")?;
    let last = lines.last().context("it said something")?;
    ensure!(last.contains(" INFO "), "{last:?}");
    ensure!(
        !last.contains('\u{1b}') && !last.starts_with('{'),
        "{last:?}"
    );
    Ok(())
}

fn check(name: &str, value: &str) -> Result<Output> {
    let mut check = Command::new(quorate(NODE));
    let output = check.args(["serve", "--check"]).env(name, value).output()?;
    Ok(output)
}

#[test]
fn a_format_or_a_level_that_is_none_is_refused_before_anything_starts() -> Result<()> {
    for (name, value, told) in [
        ("QUORATE_LOG__FORMAT", "xml", "`human` or `json`"),
        ("QUORATE_LOG__FILTER", "info,openraft=loud", "log.filter"),
    ] {
        let output = check(name, value)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{}", output.status);
        ensure!(stderr.contains(told), "{stderr}");
    }
    ensure!(check("QUORATE_LOG__FILTER", "debug")?.status.success());
    Ok(())
}
