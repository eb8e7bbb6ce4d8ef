//! See `src/state/codec.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::state::codec::run(bytes));
