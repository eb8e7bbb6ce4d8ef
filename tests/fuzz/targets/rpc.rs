//! See `src/node/rpc.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::node::rpc::run(bytes));
