//! A node's configuration in layers: defaults, file, environment, flags; each value knows its
//! origin.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::path::Path;

use quorate_node::Config;
use toml::{Table, Value};

use crate::exit::Failure;

/// An option given as a flag.
pub struct Flag {
    /// As it is typed, for the origin.
    pub flag: &'static str,
    /// `section.key`.
    pub option: &'static str,
    /// What it was given.
    pub value: Value,
}

/// A configuration and where each of its values is from.
#[derive(Debug)]
pub struct Layered {
    /// All layers together.
    pub config: Config,
    values: Table,
    origins: BTreeMap<String, String>,
}

/// Puts the layers on top of each other and checks the result.
pub fn layered(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: Vec<Flag>,
) -> Result<Layered, Failure> {
    let defaults = Table::try_from(Config::default())
        .map_err(|error| Failure::invalid(format!("the defaults are no TOML: {error}")))?;
    let mut layers = Layers {
        values: defaults.clone(),
        origins: BTreeMap::new(),
    };
    if let Some(path) = file {
        layers.add_file(path)?;
    }
    for (name, text) in env {
        if let Some(option) = option_of_env(&name) {
            let value = value_of_env(&defaults, &option, &name, &text)?;
            layers.set(&option, value, &name);
        }
    }
    for Flag {
        flag,
        option,
        value,
    } in flags
    {
        layers.set(option, value, flag);
    }
    layers.finish()
}

struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// The file is read as a configuration of its own first, so that what is wrong with it is told
    /// with its line.
    fn add_file(&mut self, path: &Path) -> Result<(), Failure> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::invalid(format!(
                "--config {shown}: {error}; give a file that can be read"
            ))
        })?;
        toml::from_str::<Config>(&text)
            .map_err(|error| Failure::invalid(format!("{shown}: {error}")))?;
        let table: Table =
            toml::from_str(&text).map_err(|error| Failure::invalid(format!("{shown}: {error}")))?;
        for (section, values) in table {
            let Value::Table(values) = values else {
                return Err(Failure::invalid(format!(
                    "{shown}: {section} is a section, not a value"
                )));
            };
            for (key, value) in values {
                self.set(&format!("{section}.{key}"), value, &shown);
            }
        }
        Ok(())
    }

    fn set(&mut self, option: &str, value: Value, origin: &str) {
        let (section, key) = option.split_once('.').unwrap_or(("", option));
        let section = self
            .values
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(values) = section {
            values.insert(key.to_owned(), value);
        }
        self.origins.insert(option.to_owned(), origin.to_owned());
    }

    fn finish(self) -> Result<Layered, Failure> {
        let config: Config = self
            .values
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| {
                Failure::invalid(format!("configuration: {}", error.message()))
            })?;
        config.validate().map_err(|error| {
            let origin = self
                .origins
                .get(&error.field)
                .map_or("default", String::as_str);
            Failure::invalid(format!("configuration: {error} (from {origin})"))
        })?;
        Ok(Layered {
            config,
            values: self.values,
            origins: self.origins,
        })
    }
}

/// `QUORATE_RAFT__HEARTBEAT_MS` is `raft.heartbeat_ms`. What has no `__` is a flag's variable, but
/// for the short name of the log's levels.
fn option_of_env(name: &str) -> Option<String> {
    if name == "QUORATE_LOG" {
        return Some("log.filter".to_owned());
    }
    let (section, key) = name.strip_prefix("QUORATE_")?.split_once("__")?;
    Some(format!("{}.{}", section.to_lowercase(), key.to_lowercase()))
}

/// Text of the environment is read as the kind of value that the option has.
fn value_of_env(defaults: &Table, option: &str, name: &str, text: &str) -> Result<Value, Failure> {
    let (section, key) = option.split_once('.').unwrap_or(("", option));
    let known = defaults.get(section).and_then(|section| section.get(key));
    let wrong =
        |kind: &str| Failure::invalid(format!("{name}={text:?} sets {option}: give {kind}"));
    match known {
        None => Err(Failure::invalid(format!(
            "{name} sets {option}, which is no option; `quorate serve --print-config` shows all"
        ))),
        Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
        Some(Value::Integer(_)) => match text.parse() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err(wrong("a whole number")),
        },
        Some(Value::Boolean(_)) => match text.parse() {
            Ok(truth) => Ok(Value::Boolean(truth)),
            Err(_) => Err(wrong("true or false")),
        },
        Some(_) => Ok(toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(text.to_owned()))),
    }
}

impl Display for Layered {
    /// TOML that can be given back with `--config`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (section, values)) in self.values.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            writeln!(f, "{gap}[{section}]")?;
            for (key, value) in values.as_table().into_iter().flatten() {
                let mut line = String::new();
                write!(line, "{key} = {value}")?;
                let origin = self.origins.get(&format!("{section}.{key}"));
                let origin = origin.map_or("default", String::as_str);
                writeln!(f, "{line:<40} # {origin}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn read(
        file: Option<&str>,
        env: &[(&str, &str)],
        flags: Vec<Flag>,
    ) -> Result<Layered, Failure> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("config.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
        }
        let env = env
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        layered(file.map(|_| path.as_path()), env, flags)
    }

    #[test]
    fn flags_win_over_env_over_file_over_defaults_and_each_says_where_it_is_from() {
        let file = "[node]\nname = 'a'\ndata_dir = '/a'\n[raft]\nheartbeat_ms = 20\n";
        let env = [
            ("QUORATE_NODE__NAME", "b"),
            ("QUORATE_NODE__DATA_DIR", "/b"),
        ];
        let flag = Flag {
            flag: "--name",
            option: "node.name",
            value: Value::String("c".to_owned()),
        };
        let layered = read(Some(file), &env, vec![flag]).expect("valid");
        assert_eq!(layered.config.node.name, "c");
        assert_eq!(layered.config.node.data_dir, Path::new("/b"));
        assert_eq!(layered.config.raft.heartbeat_ms, 20);
        let shown = layered.to_string();
        let line = |key: &str| {
            shown
                .lines()
                .find(|line| line.starts_with(key))
                .unwrap_or("")
        };
        assert!(line("name = \"c\"").ends_with("# --name"), "{shown}");
        assert!(
            line("data_dir = \"/b\"").ends_with("# QUORATE_NODE__DATA_DIR"),
            "{shown}"
        );
        assert!(
            line("heartbeat_ms = 20").ends_with("config.toml"),
            "{shown}"
        );
        assert!(line("bootstrap = false").ends_with("# default"), "{shown}");
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let env = [
            ("QUORATE_NODE__NAME", "a \"b\""),
            ("QUORATE_NODE__BOOTSTRAP", "true"),
        ];
        let layered = read(None, &env, Vec::new()).expect("valid");
        let again: Config = toml::from_str(&layered.to_string()).expect("TOML");
        assert_eq!(again, layered.config);
    }

    #[test]
    fn an_unknown_key_is_an_error_wherever_it_is() {
        let failure = read(Some("[node]\nnmae = 'a'\n"), &[], Vec::new()).expect_err("a typo");
        assert_eq!(failure.exit(), Exit::Invalid);
        assert!(failure.message().contains("nmae"), "{failure:?}");
        let env = [("QUORATE_NODE__NMAE", "a")];
        let failure = read(None, &env, Vec::new()).expect_err("a typo");
        assert!(
            failure
                .message()
                .starts_with("QUORATE_NODE__NMAE sets node.nmae"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_value_out_of_bounds_says_where_it_is_from() {
        let env = [("QUORATE_RAFT__HEARTBEAT_MS", "5")];
        let failure = read(None, &env, Vec::new()).expect_err("too fast");
        assert!(
            failure.message().contains("QUORATE_RAFT__HEARTBEAT_MS"),
            "{failure:?}"
        );
        let env = [("QUORATE_RAFT__HEARTBEAT_MS", "fast")];
        let failure = read(None, &env, Vec::new()).expect_err("no number");
        assert!(
            failure.message().ends_with("give a whole number"),
            "{failure:?}"
        );
    }

    #[test]
    fn the_levels_of_the_log_have_a_short_name() {
        let layered = read(None, &[("QUORATE_LOG", "debug")], Vec::new()).expect("valid");
        assert_eq!(layered.config.log.filter, "debug");
        let shown = layered.to_string();
        let line = shown.lines().find(|line| line.starts_with("filter"));
        assert!(
            line.is_some_and(|it| it.ends_with("# QUORATE_LOG")),
            "{shown}"
        );
    }

    #[test]
    fn variables_of_flags_are_no_options() {
        let env = [
            ("QUORATE_ENDPOINTS", "a:1"),
            ("HOME", "/"),
            ("QUORATE_TIMEOUT", "5s"),
        ];
        assert!(read(None, &env, Vec::new()).is_ok());
    }
}
