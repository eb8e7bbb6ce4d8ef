//! Clients that keep account of what they are answered, and what must hold of it.
//!
//! Real processes (`tests/`) and simulated clusters (`tests/sim/`) are judged by the same rules.
//!
//! | module | what it has |
//! |---|---|
//! | [`clients`] | who asks, by noun |
//! | [`record`] | what they were answered |
//! | [`models`] | what they may be answered, by noun |
//! | [`check`] | the verdicts |
//! | [`history`] | what writers of a load asked for, when, and what they were answered |
//! | [`oracle`] | whether a state agrees with that history |

pub mod check;
pub mod clients;
pub mod history;
pub mod models;
pub mod oracle;
pub mod record;
