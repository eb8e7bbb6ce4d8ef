//! See `src/node/h2.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::node::h2::run(bytes));
