//! Tests of clusters of real processes: every node is an operating-system process with durable
//! writes, hurt as a machine would hurt it, while clients write and keep account of every answer.
//!
//! | module | what it has |
//! |---|---|
//! | [`process`] | one node: start, kill, pause, restart on the same directory and ports |
//! | [`chaos`] | `make chaos`: processes on machines of their own, every fault, histories checked |
//! | [`cluster`] | several: found and grow, find the leader, compare digests |
//! | [`examine`] | all that the stores of a stopped node hold, read as the node reads them |
//! | [`http`] | asking a node over HTTP, as probes and Prometheus do |
//! | [`load`] | concurrent writers, bounded in rate, count and time |
//! | [`oracle`] | whether the cluster's state agrees with that history |
//! | [`pki`] | an authority and certificates, good ones and bad ones |
//! | [`program`] | the program `quorate`: built, run, what it printed |
//! | [`proxy`] | connections between clients and a node that can be cut |
//! | [`raw`] | messages that no client of ours would send |
//! | [`s3`] | a store for backups, good or bad |
//! | [`wait`] | waiting for conditions, with a deadline |
//!
//! A scenario is a file in `tests/`. Standard error of the nodes goes to files in the scenario's
//! directory, is printed when the scenario fails, and must never hold the word of a panic.

pub mod chaos;
pub mod cluster;
pub mod examine;
pub mod http;
pub mod load;
pub mod oracle;
pub mod pki;
pub mod process;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod s3;
pub mod wait;

/// How large a test is: what the environment variable says, for the long form, or the default.
#[must_use]
pub fn long_form(variable: &str, default: usize) -> usize {
    let set = std::env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}
