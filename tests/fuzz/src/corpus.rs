//! The corpus of a target: inputs that reached something new once, a file each.

use std::fs;
use std::path::PathBuf;

/// Set to add the seeds that a test knows to the corpus of its target.
const WRITE: &str = "QUORATE_WRITE_CORPUS";

/// Where the inputs of a target are, seen from a package of the workspace.
fn folder(target: &str) -> PathBuf {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
    PathBuf::from(corpus).join(target)
}

/// Runs all inputs of a target, and the seeds, which are written into the corpus if that is asked.
pub fn replay(target: &str, seeds: Vec<(String, Vec<u8>)>, run: impl Fn(&[u8])) {
    let folder = folder(target);
    for (name, bytes) in &seeds {
        run(bytes);
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(&folder).expect("the corpus can be written");
            fs::write(folder.join(name), bytes).expect("the corpus can be written");
        }
    }
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an input").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        // Shown if it fails.
        println!("{}", input.display());
        run(&fs::read(&input).expect("an input can be read"));
    }
}
