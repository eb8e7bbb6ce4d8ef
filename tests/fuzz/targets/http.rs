//! See `src/node/http.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::node::http::run(bytes));
