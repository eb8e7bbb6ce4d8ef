//! See `src/cli/arguments.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::cli::arguments::run(bytes));
