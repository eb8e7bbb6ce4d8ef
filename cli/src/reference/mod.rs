//! The reference in `docs/reference/`, written from the code that it describes, and held current.
//!
//! | file | from |
//! |---|---|
//! | `cli.md` | the table of commands as clap has it ([`cli`]) |
//! | `config.md` | the comments, defaults and checks of the node's configuration ([`config`]) |
//! | `errors.md` | every `Refusal` and every `NodeError` ([`errors`]) |
//!
//! `make docs` writes them (`QUORATE_WRITE_DOCS=1`); without that the test compares.

mod cli;
mod config;
mod errors;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("cli/ is in the repository").to_owned()
}

/// Text for a cell of a table: on one line, and without what would end the cell.
fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

/// Text in code type, or nothing.
fn code(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("`{}`", cell(text)),
    }
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn header(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    format!("{}|{}\n", row(&names), "---|".repeat(names.len()))
}

/// A document's beginning: its title, and that it is not to be edited.
fn title(title: &str, from: &str) -> String {
    format!("# {title}\n\nWritten by `make docs` from {from}; do not edit.\n\n")
}

#[test]
fn reference_is_current() {
    let write = std::env::var_os("QUORATE_WRITE_DOCS").is_some();
    let mut stale = Vec::new();
    for (name, text) in [
        ("cli.md", cli::page()),
        ("config.md", config::page()),
        ("errors.md", errors::page()),
    ] {
        let path = root().join("docs/reference").join(name);
        if write {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, text).expect("written");
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            stale.push(name);
        }
    }
    assert!(
        stale.is_empty(),
        "docs/reference: {stale:?} are not what the code says; run `make docs` and look at the \
         difference"
    );
}
