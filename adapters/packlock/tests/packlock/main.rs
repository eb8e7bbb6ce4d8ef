//! Pack locks on real nodes: one in this process, and three that talk over sockets.

mod cluster;
mod reentry;
mod runtimes;
mod scenarios;
