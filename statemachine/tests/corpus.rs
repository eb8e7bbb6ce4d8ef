//! The inputs that fuzzing has kept, run once more: what was mended stays mended.

#[path = "../../tests/fuzz/src/corpus.rs"]
#[allow(
    clippy::disallowed_methods,
    reason = "the corpus is files; what is run on them reads none"
)]
mod corpus;
#[path = "../../tests/fuzz/src/state/mod.rs"]
mod state;

/// Everything that is pinned: `frozen.txt` has all commands, rows, replies, queries and answers.
fn pinned() -> Vec<(String, Vec<u8>)> {
    let lines = include_str!("frozen.txt").lines();
    let lines = lines.filter_map(|line| line.split_once(": "));
    let values = lines.filter(|(name, _)| !name.starts_with("key "));
    let named = values.map(|(name, hex)| (name.replace(' ', "-"), from_hex(hex)));
    named.collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| {
        let pair = std::str::from_utf8(pair).expect("hex digits");
        u8::from_str_radix(pair, 16).expect("hex digits")
    });
    bytes.collect()
}

/// Numbers that look random and are the same each time.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let bytes = (0..600).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    bytes.collect()
}

#[test]
fn bytes_that_are_stored_or_sent_are_survived() {
    corpus::replay("codec", pinned(), state::codec::run);
}

#[test]
fn no_order_of_commands_breaks_the_state() {
    let seeds = (0..32).map(|seed| (format!("noise-{seed}"), noise(seed)));
    corpus::replay("apply", seeds.collect(), state::apply::run);
}
