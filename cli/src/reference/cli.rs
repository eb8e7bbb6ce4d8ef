//! `docs/reference/cli.md`: each command with its arguments, as clap has them.

use clap::{Arg, Command};

use super::{cell, code, header, row, title};

pub fn page() -> String {
    let mut root = crate::args::command();
    // Global flags are known to the commands inside only then.
    root.build();
    let mut page = title("The command line", "`cli/src/args.rs` and `cli/src/args/`");
    page += "One program, `quorate`. Data goes to stdout, words to stderr. `quorate COMMAND -h` \
             shows one command,\n`--help` the global flags too.\n\n";
    page += &format!("```text\n{}\n```\n\n", crate::args::EXIT_CODES);
    page += "What each error means and what to do about it is in [errors.md](errors.md).\n\n";
    page += "## Global flags\n\nThey stand before or behind any command.\n\n";
    page += &flags(root.get_arguments());
    page += "\n## Commands\n\n";
    let mut commands = Vec::new();
    leaves(&root, "quorate", &mut commands);
    page += &header(&["command", "what it does"]);
    for (name, command) in &commands {
        let link = format!("[`{name}`](#{})", name.replace(' ', "-"));
        page += &row(&[link, about(command)]);
    }
    let globals: Vec<&str> = root
        .get_arguments()
        .map(|arg| arg.get_id().as_str())
        .collect();
    for (name, command) in commands {
        page += &section(&name, command, &globals);
    }
    page
}

/// The commands that do something, each with its whole name.
fn leaves<'a>(command: &'a Command, name: &str, found: &mut Vec<(String, &'a Command)>) {
    if !command.has_subcommands() {
        found.push((name.to_owned(), command));
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        leaves(verb, &format!("{name} {}", verb.get_name()), found);
    }
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(|text| cell(&text.to_string()))
        .unwrap_or_default()
}

fn section(name: &str, command: &Command, globals: &[&str]) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let mut section = format!(
        "\n### {name}\n\n{}.\n\n```text\n{usage}\n```\n",
        about(command)
    );
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !globals.contains(&arg.get_id().as_str()) && !arg.is_hide_set())
        .collect();
    if !own.is_empty() {
        section += &format!("\n{}", flags(own));
    }
    let after = command.get_after_long_help().or(command.get_after_help());
    if let Some(after) = after {
        section += &format!("\n```text\n{after}\n```\n");
    }
    section
}

fn flags<'a>(args: impl IntoIterator<Item = &'a Arg>) -> String {
    let mut table = header(&["argument", "default", "environment", "what"]);
    for arg in args {
        let defaults: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        let default = match arg.get_action().takes_values() {
            true => defaults.join(","),
            false => String::new(),
        };
        let variable = arg.get_env().map(|name| name.to_string_lossy());
        table += &row(&[
            code(&typed(arg)),
            code(&default),
            code(&variable.unwrap_or_default()),
            what(arg),
        ]);
    }
    table
}

/// How an argument is typed, as `-o, --output <OUTPUT>`.
fn typed(arg: &Arg) -> String {
    let mut names: Vec<String> = arg
        .get_short()
        .map(|it| format!("-{it}"))
        .into_iter()
        .collect();
    names.extend(arg.get_long().map(|it| format!("--{it}")));
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    names.extend(aliases.iter().map(|it| format!("--{it}")));
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let value = match value.is_empty() {
        true => arg.get_id().as_str().to_uppercase(),
        false => value,
    };
    let is_many = arg
        .get_num_args()
        .is_some_and(|count| count.max_values() > 1);
    let many = if is_many { "…" } else { "" };
    match (names.is_empty(), arg.get_action().takes_values()) {
        (true, _) if arg.is_required_set() => format!("{value}{many}"),
        (true, _) => format!("[{value}{many}]"),
        (false, true) => format!("{} {value}{many}", names.join(", ")),
        (false, false) => names.join(", "),
    }
}

fn what(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let mut what = help.map(|text| cell(&text.to_string())).unwrap_or_default();
    if arg.get_long().is_some() && arg.is_required_set() {
        what += " (required)";
    }
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => {
                let help = cell(&help.to_string());
                format!("`{}` ({})", value.get_name(), help.trim_end_matches('.'))
            }
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    match values.is_empty() {
        true => what,
        false => format!("{what}: {}", values.join(", ")),
    }
}
