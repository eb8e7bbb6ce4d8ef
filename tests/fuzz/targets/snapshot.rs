//! See `src/node/snapshot.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::node::snapshot::run(bytes));
