//! Damage on the disk: a node refuses what is not what was written, at its start or when it reads
//! it, says where it is and what to do, and is rebuilt from the others. It never serves it.
//!
//! | module | what it shows |
//! |---|---|
//! | [`matrix`] | damage of every kind to every file of a stopped node |
//! | [`members`] | members of a running cluster with a damaged disk, and the way back |
//!
//! `QUORATE_DAMAGES=20` flips so many bits in every file, and takes every file.
//! `QUORATE_DAMAGE_SEED` repeats a run.

mod damage;
mod directory;
mod matrix;
mod members;

/// The program of a node.
const NODE: &str = env!("CARGO_BIN_EXE_test-node");
