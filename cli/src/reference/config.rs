//! `docs/reference/config.md`: each key of a node's configuration. What it means is its comment in
//! the node's code, its default is `Config::default()`, and its bounds are what the check of a
//! configuration says of values out of bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quorate_node::Config;
use toml::{Table, Value};

use super::{cell, code, header, root, row, title};
use crate::args::{self, Cli};
use crate::commands::serve;

/// Keys and their variables that are no option of a node, but that the program looks at.
const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("QUORATE_LOG", "Short for `QUORATE_LOG__FILTER`"),
    (
        "QUORATE_TOKEN",
        "The token that commands show if there is no `--token-file`",
    ),
    (
        "AWS_…",
        "Credentials, region and authorities of the store of backups: \
         [backups](../operations/backups.md#in-a-store)",
    ),
    ("NO_COLOR", "No colours in what is logged, if set"),
    (
        "TRACEPARENT",
        "The trace that a command of the command line is a part of (W3C Trace Context)",
    ),
];

/// A structure of the configuration, as it stands in the code.
#[derive(Debug, Default)]
struct Section {
    about: String,
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    kind: String,
    about: String,
}

pub fn page() -> String {
    let sections = sections();
    let defaults = Table::try_from(Config::default()).expect("the defaults are TOML");
    let mut page = title("The configuration of a node", "`node/src/config/mod.rs`");
    page += "`quorate serve --config FILE` reads TOML. Over the file goes the environment \
             (`QUORATE_SECTION__KEY`), over that\nthe flags of `quorate serve`. Unknown keys are \
             errors. `quorate serve --check` checks, `--print-config` shows\nthe result and where \
             each value is from. A file with every key at its default is\n\
             [config.example.toml](../../deploy/config.example.toml).\n";
    let config = sections.get("Config").expect("the configuration itself");
    for field in &config.fields {
        section(&mut page, &sections, &defaults, &field.name, &field.kind);
    }
    page += "\n## Variables that are no option\n\n";
    page += &header(&["variable", "what"]);
    for (name, what) in OTHER_VARIABLES {
        page += &row(&[code(name), (*what).to_owned()]);
    }
    page += "\nThe variables of flags are in [cli.md](cli.md#global-flags).\n";
    page
}

/// The section at `path` and those inside it.
fn section(
    page: &mut String,
    sections: &BTreeMap<String, Section>,
    defaults: &Table,
    path: &str,
    kind: &str,
) {
    let section_kind = inner(kind);
    let Some(found) = sections.get(section_kind) else {
        panic!("{path}: no structure {section_kind} that can be deserialized");
    };
    let shown = match kind.starts_with("Vec<") {
        true => format!("[[{path}]]"),
        false => format!("[{path}]"),
    };
    *page += &format!("\n## {shown}\n\n{}\n\n", cell(&found.about));
    *page += &header(&[
        "key",
        "kind",
        "default",
        "bounds",
        "environment, flag",
        "what",
    ]);
    let (mut inside, flags) = (Vec::new(), flags());
    for field in &found.fields {
        let option = format!("{path}.{}", field.name);
        assert!(
            !field.about.is_empty(),
            "{option} has no comment in the code"
        );
        if sections.contains_key(inner(&field.kind)) {
            inside.push((option, field.kind.clone()));
            continue;
        }
        let default = look_up(defaults, &option);
        let shown = default.map(ToString::to_string).unwrap_or_default();
        let mut from = Vec::new();
        if path.split('.').count() == 1 && !kind.starts_with("Vec<") {
            let variable = option.to_uppercase().replace('.', "__");
            from.push(format!("`QUORATE_{variable}`"));
        }
        let flags = flags.iter().filter(|(_, sets)| *sets == option);
        from.extend(flags.map(|(flag, _)| format!("`{flag}`")));
        *page += &row(&[
            code(&field.name),
            unit(&field.name, &field.kind),
            code(&shown),
            bounds(defaults, &option, default),
            from.join(", "),
            cell(&field.about),
        ]);
    }
    for (option, kind) in inside {
        section(page, sections, defaults, &option, &kind);
    }
}

/// The flags of `serve` that set an option, and which.
fn flags() -> Vec<(&'static str, &'static str)> {
    let root = args::command();
    let serve = root.find_subcommand("serve").expect("there is `serve`");
    let mut line = vec!["quorate".to_owned(), "serve".to_owned()];
    for arg in serve.get_arguments() {
        let is_global = root.get_arguments().any(|it| it.get_id() == arg.get_id());
        if let (false, Some(flag)) = (is_global, arg.get_long()) {
            line.push(format!("--{flag}"));
            line.extend(arg.get_action().takes_values().then(|| "x".to_owned()));
        }
    }
    let cli = Cli::read_from(line).expect("every flag, once");
    let args::Command::Serve(serve) = cli.command else {
        unreachable!("it was asked for");
    };
    let flags = serve::flags(&serve).into_iter();
    flags.map(|flag| (flag.flag, flag.option)).collect()
}

/// The type without what says that it may be missing or several.
fn inner(kind: &str) -> &str {
    let kind = kind
        .trim_start_matches("Option<")
        .trim_start_matches("Vec<");
    let kind = kind.trim_end_matches('>');
    kind.rsplit("::").next().unwrap_or(kind)
}

fn unit(name: &str, kind: &str) -> String {
    let base = match inner(kind) {
        "String" => "text",
        "PathBuf" => "path",
        "bool" => "`true` or `false`",
        "f64" => "number",
        "u8" | "u16" | "u32" | "u64" | "usize" => match name.rsplit('_').next() {
            Some("ms") => "milliseconds",
            Some("s" | "seconds") => "seconds",
            Some("bytes") => "bytes",
            _ => "whole number",
        },
        _ => "text",
    };
    match kind.starts_with("Vec<") {
        true => format!("list of {base}"),
        false => base.to_owned(),
    }
}

fn look_up<'a>(table: &'a Table, option: &str) -> Option<&'a Value> {
    let mut keys = option.split('.');
    let mut value = table.get(keys.next()?)?;
    for key in keys {
        value = value.get(key)?;
    }
    Some(value)
}

/// What the check says of the smallest and the largest number, if it refuses them.
fn bounds(defaults: &Table, option: &str, default: Option<&Value>) -> String {
    let Some(Value::Integer(_)) = default else {
        return String::new();
    };
    let mut said: Vec<String> = [0, i64::MAX]
        .into_iter()
        .filter_map(|number| {
            let mut table = defaults.clone();
            let (section, key) = option.rsplit_once('.')?;
            let mut inside = &mut table;
            for name in section.split('.') {
                inside = inside.get_mut(name)?.as_table_mut()?;
            }
            inside.insert(key.to_owned(), Value::Integer(number));
            let config: Config = table.try_into().ok()?;
            let refused = config.validate().err()?;
            (refused.field == option).then_some(refused.limit)
        })
        .collect();
    said.dedup();
    cell(&said.join("; "))
}

/// Every structure of the node's code that a configuration can be read into.
fn sections() -> BTreeMap<String, Section> {
    let mut sections = BTreeMap::new();
    for path in sources(&root().join("node/src")) {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        read_sections(&text, &mut sections);
    }
    sections
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a readable folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// Relies on rustfmt: one field a line, and a structure ends with a bracket at the margin.
fn read_sections(text: &str, sections: &mut BTreeMap<String, Section>) {
    let (mut about, mut is_read) = (String::new(), false);
    let mut open: Option<(String, Section)> = None;
    for line in text.lines() {
        let words = line.trim();
        if let Some(comment) = words.strip_prefix("///") {
            about += comment;
        } else if words.starts_with("#[derive(") {
            is_read = words.contains("Deserialize");
        } else if words.starts_with('#') {
            // Another attribute: the comment before it is still that of what follows.
        } else if let Some(name) = words.strip_prefix("pub struct ") {
            let name = name.trim_end_matches(" {").to_owned();
            let section = Section {
                about: std::mem::take(&mut about),
                fields: Vec::new(),
            };
            open = (is_read && words.ends_with('{')).then_some((name, section));
        } else if let (Some((_, section)), Some(field)) = (&mut open, words.strip_prefix("pub ")) {
            let (name, kind) = field.split_once(": ").expect("a field has a type");
            section.fields.push(Field {
                name: name.to_owned(),
                kind: kind.trim_end_matches(',').to_owned(),
                about: std::mem::take(&mut about),
            });
        } else {
            if line == "}" {
                sections.extend(open.take());
            }
            about.clear();
        }
    }
}

#[test]
fn every_key_that_has_a_default_is_in_the_reference() {
    let page = page();
    for (section, keys) in Table::try_from(Config::default()).expect("TOML") {
        assert!(page.contains(&format!("## [{section}]\n")), "{section}");
        for key in keys.as_table().into_iter().flat_map(Table::keys) {
            let is_there = page.contains(&format!("| `{key}` |"));
            let is_section = page.contains(&format!("[{section}.{key}]"));
            assert!(is_there || is_section, "{section}.{key}");
        }
    }
    assert!(page.contains("at least twice raft.heartbeat_ms"), "{page}");
}
