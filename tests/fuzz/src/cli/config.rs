//! Target `config`: files of a node's configuration, with variables of its environment. What is
//! good is printed in a form that reads back the same.

use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;

/// Variables beside one file.
const VARIABLES_MAX: usize = 8;

/// Runs one input: a file, and behind zeros `NAME=value`, the name without what all begin with.
pub fn run(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let file = written(parts.next().unwrap_or_default());
    let variables = parts.take(VARIABLES_MAX).filter_map(|part| {
        let (name, value) = std::str::from_utf8(part).ok()?.split_once('=')?;
        Some((format!("QUORATE_{name}"), value.to_owned()))
    });
    match quorate_cli::hostile::configuration(file.path(), variables) {
        Err(told) => assert!(!told.trim().is_empty()),
        Ok((config, shown)) => {
            let again = written(shown.as_bytes());
            let read = quorate_cli::hostile::configuration(again.path(), std::iter::empty());
            assert_eq!(read.map(|(again, _)| again), Ok(config), "{shown}");
        }
    }
}

fn written(bytes: &[u8]) -> NamedTempFile {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => NamedTempFile::new_in(memory),
        false => NamedTempFile::new(),
    };
    let file = made.expect("a file");
    fs::write(file.path(), bytes).expect("written");
    file
}

/// The example that is shipped, the defaults, and a variable of each kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let example = include_str!("../../../../deploy/config.example.toml");
    let defaults = toml::to_string(&quorate_node::Config::default()).expect("it is TOML");
    let env = "\0NODE__NAME=a\0RAFT__HEARTBEAT_MS=20\0NODE__BOOTSTRAP=true\0LOG=debug\0\
               TLS__PEER_HOSTS=[\"a\"]";
    [("example", example), ("defaults", &defaults), ("env", env)]
        .map(|(name, text)| (name.to_owned(), text.into()))
        .into()
}
