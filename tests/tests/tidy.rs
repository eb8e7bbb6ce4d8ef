//! What reviewers should not have to look for: dependencies that a crate must not have, files
//! without a word on what they are for, links that lead nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_statemachine::tables;

/// Longest line of Rust, in characters.
const LINE_MAX: usize = 100;
/// Longest function, in lines, and longest scenario of a test.
const FUNCTION_LINES_MAX: usize = 70;
const SCENARIO_LINES_MAX: usize = 80;

/// What the pure core may use: nothing that knows a clock, a file or a thread.
const STATEMACHINE: &[&str] = &["bincode", "bytes", "serde", "thiserror", "xxhash-rust"];

/// What a crate must not see, so that each layer can be used without the ones above it.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "rpc",
        &["openraft", "rocksdb", "quorate-client", "quorate-node"],
    ),
    ("client", &["openraft", "rocksdb", "quorate-node"]),
    ("node", &["quorate-cli", "clap"]),
    ("cli", &["openraft", "rocksdb"]),
];

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .expect("tests/ is in the repository")
        .to_owned()
}

/// Files of the repository with this ending, without what builds leave.
fn files(ending: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a readable directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.to_string_lossy().starts_with('.');
            match path.is_dir() {
                true if hidden || name == "target" || path.join("CACHEDIR.TAG").exists() => {}
                true => open.push(path),
                false if path.extension().is_some_and(|it| it == ending) => found.push(path),
                false => {}
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} under {}", root().display());
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    let root = root();
    path.strip_prefix(&root)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn dependencies(of: &str) -> BTreeSet<String> {
    let manifest = read(&root().join(of).join("Cargo.toml"));
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let listed = manifest.get("dependencies").and_then(toml::Value::as_table);
    listed.expect("dependencies").keys().cloned().collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_core_depends_on_nothing_that_is_not_pure() {
    let allowed = STATEMACHINE.iter().map(|name| (*name).to_owned());
    assert_eq!(dependencies("statemachine"), allowed.collect());
}

#[test]
fn no_crate_sees_what_is_above_or_beside_it() {
    for (name, forbidden) in FORBIDDEN {
        let has = dependencies(name);
        assert!(!has.is_empty());
        let wrong = forbidden.iter().filter(|it| has.contains(**it));
        none(
            &wrong
                .map(|it| format!("{name} depends on {it}"))
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let silent = files("rs")
        .into_iter()
        .filter(|path| !read(path).starts_with("//!"));
    none(&silent.map(|path| shown(&path)).collect::<Vec<_>>());
}

#[test]
fn no_line_is_too_long_and_nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    let left = ["TO", "DO"].concat();
    for path in files("rs") {
        for (at, line) in (1..).zip(read(&path).lines()) {
            let characters = line.chars().count();
            if characters > LINE_MAX {
                wrong.push(format!("{}:{at}: {characters} characters", shown(&path)));
            }
            if line.contains(&left) {
                wrong.push(format!("{}:{at}: {left}", shown(&path)));
            }
        }
    }
    none(&wrong);
}

/// Relies on rustfmt: the end of a function is as far in as its start.
#[test]
fn every_function_fits_a_screen() {
    let mut wrong = Vec::new();
    for path in files("rs") {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        let max = match shown(&path).starts_with("tests/tests/") {
            true => SCENARIO_LINES_MAX,
            false => FUNCTION_LINES_MAX,
        };
        for (at, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let indent = &line[..line.len() - body.len()];
            let is_function = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
            ]
            .iter()
            .any(|start| body.starts_with(start));
            if !is_function || body.ends_with(';') || body.ends_with('}') {
                continue;
            }
            let end = format!("{indent}}}");
            let length = lines[at..]
                .iter()
                .position(|line| *line == end)
                .unwrap_or(0)
                + 1;
            if length > max {
                wrong.push(format!("{}:{}: {length} lines", shown(&path), at + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_test_script_begins_with_a_sentence() {
    let scripts = root().join("statemachine/testscripts");
    let mut count = 0;
    for group in fs::read_dir(scripts).expect("the scripts").flatten() {
        for script in fs::read_dir(group.path()).expect("a group").flatten() {
            let text = read(&script.path());
            assert!(text.starts_with("# "), "{}", shown(&script.path()));
            count += 1;
        }
    }
    assert!(count >= 50, "only {count} scripts were found");
}

#[test]
fn every_table_is_documented_under_its_tag() {
    let data = read(&root().join("docs/DATA.md"));
    let missing = tables::REGISTRY
        .iter()
        .map(|(tag, name)| format!("| `{tag:#04x}` | `{name}` |"))
        .filter(|row| !data.contains(row));
    none(&missing.collect::<Vec<_>>());
    let tags: BTreeSet<u8> = tables::REGISTRY.iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags.len(), tables::REGISTRY.len(), "a tag is used twice");
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in files("md") {
        let text = read(&path);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://");
            let dir = path.parent().expect("a file has a directory");
            if !elsewhere && !dir.join(target).exists() {
                wrong.push(format!("{}: {target}", shown(&path)));
            }
        }
    }
    none(&wrong);
}
