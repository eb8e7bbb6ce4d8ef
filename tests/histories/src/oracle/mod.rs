//! What must hold of an account, and of the state that was read back when it ended.
//!
//! Each check is a pure function, and is shown to find a planted fault next to it.

pub mod events;
pub mod items;
pub mod leases;
pub mod tokens;
