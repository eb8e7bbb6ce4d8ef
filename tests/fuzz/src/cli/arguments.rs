//! Target `arguments`: command lines, read by the parser of the program.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Words of one line.
const WORDS_MAX: usize = 64;

/// Runs one input: words with zeros between them, as a process is given them.
pub fn run(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == 0).take(WORDS_MAX);
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    let line: Vec<OsString> = std::iter::once("quorate".into()).chain(words).collect();
    if let Err(told) = quorate_cli::hostile::arguments(&line) {
        assert!(
            !told.trim().is_empty(),
            "{line:?} is refused without a word"
        );
    }
}

/// A line of every kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let lines = include_str!("lines.txt").lines().enumerate();
    let named = lines.map(|(at, line)| (format!("line-{at}"), line.replace(' ', "\0").into()));
    named.collect()
}
