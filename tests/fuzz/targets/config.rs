//! See `src/cli/config.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::cli::config::run(bytes));
