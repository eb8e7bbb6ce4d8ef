//! Targets of the command line.

pub mod arguments;
pub mod config;
