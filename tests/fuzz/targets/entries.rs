//! See `src/node/entries.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::node::entries::run(bytes));
