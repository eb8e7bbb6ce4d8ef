//! See `src/state/apply.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::state::apply::run(bytes));
