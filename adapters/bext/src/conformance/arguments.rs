//! Keys of all kinds, and arguments that make no sense.

use super::bench::{Bench, Check, LONG, ensure, ensure_taken, lock, ms, release};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("locks_of_different_keys_are_independent", independent),
    ("keys_that_look_alike_are_different_locks", look_alike),
    ("arguments_that_make_no_sense_are_survived", nonsense),
];

fn independent(bench: &Bench) -> Result<(), String> {
    let (one, two) = (bench.key("one"), bench.key("two"));
    let first = lock(&*bench.ours, &one, LONG)?;
    let second = lock(&*bench.ours, &two, LONG)?;
    release(&*bench.ours, first)?;
    ensure_taken(&*bench.theirs, &two)?;
    let first = lock(&*bench.theirs, &one, LONG)?;
    release(&*bench.theirs, first)?;
    release(&*bench.ours, second)
}

/// Ends of keys between which a backend that folds, trims, splits, escapes, hashes badly or cuts
/// would see no difference.
fn odd_ends() -> Vec<String> {
    let long = "x".repeat(300);
    let mut ends: Vec<String> = [
        "a",
        "A",
        "a ",
        " a",
        "a/",
        "a//",
        "a/b",
        "a:b",
        "a.b",
        "a*",
        "a?",
        "a%2F",
        "a%",
        "{a}",
        "a'",
        "a\"",
        "a\\",
        "a;--",
        "$a",
        "a-1",
        "a-10",
        "\u{e9}",
        "e\u{301}",
        "ключ",
        "鍵",
        "🔒",
        "\u{200b}a",
        "مفتاح",
        "ｋｅｙ",
        "key",
        "ß",
        "ss",
    ]
    .map(str::to_owned)
    .into();
    ends.extend([long.clone(), format!("{long}y"), format!("{long}z")]);
    ends
}

fn look_alike(bench: &Bench) -> Result<(), String> {
    let begin = bench.key("");
    let mut handles = Vec::new();
    for end in odd_ends() {
        let key = format!("{begin}{end}");
        let handle = lock(&*bench.ours, &key, LONG)?;
        ensure!(
            handle.key == key,
            "the handle of {key:?} says {:?}",
            handle.key
        );
        handles.push(handle);
    }
    for handle in &handles {
        ensure_taken(&*bench.theirs, &handle.key)?;
    }
    while let Some(handle) = handles.pop() {
        let key = handle.key.clone();
        release(&*bench.ours, handle)?;
        let handle = lock(&*bench.theirs, &key, LONG)?;
        release(&*bench.theirs, handle)?;
        if let Some(other) = handles.last() {
            ensure_taken(&*bench.theirs, &other.key)?;
        }
    }
    Ok(())
}

/// Whether such arguments are refused is the backend's affair; it must say so, and go on working.
fn nonsense(bench: &Bench) -> Result<(), String> {
    let key = bench.key("nonsense");
    let arguments = [
        (String::new(), ms(LONG)),
        (format!("{key}\0"), ms(LONG)),
        (format!("{key}\n\u{7f}"), ms(LONG)),
        (format!("{key}{}", "x".repeat(100_000)), ms(LONG)),
        (format!("{key}-0"), 0),
        (format!("{key}-max"), u64::MAX),
    ];
    for (key, ttl_ms) in arguments {
        match bench.ours.try_lock(&key, ttl_ms) {
            Ok(None) => {}
            Ok(Some(handle)) => release(&*bench.ours, handle)?,
            Err(words) => ensure!(
                !words.is_empty(),
                "try_lock of a key of {} bytes for {ttl_ms} ms failed without a word",
                key.len()
            ),
        }
    }
    let handle = lock(&*bench.ours, &key, LONG)?;
    release(&*bench.ours, handle)
}
