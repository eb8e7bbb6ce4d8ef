//! The bodies of the fuzz targets: what is done with an input, and what must hold afterwards.
//!
//! The bodies about one crate are a module that this crate's `tests/corpus.rs` includes too: there
//! the corpus is run on every change, without a fuzzer.

#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod node;
pub mod state;
