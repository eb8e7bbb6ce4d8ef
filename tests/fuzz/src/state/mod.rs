//! Targets of the state machine.

pub mod apply;
pub mod codec;
mod generate;
mod twins;
