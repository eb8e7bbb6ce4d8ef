//! One value of everything that is stored or sent, with every field filled.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test that includes these uses some of them"
)]

use quorate_statemachine::{LeaseToken, Name, Owner};

mod access;
mod commands;
mod locks;
mod processes;
mod queries;
mod replies;
mod rows;
mod session_answers;
mod session_commands;
mod sessions;

pub use commands::commands;
pub use queries::{answers, queries};
pub use replies::replies;
pub use rows::{row_forms, rows};

pub fn name(text: &str) -> Name {
    Name::parse("sample", text).expect("samples are within bounds")
}

pub fn token(text: &str) -> LeaseToken {
    LeaseToken::parse(text).expect("samples are within bounds")
}

pub fn owner() -> Owner {
    Owner {
        liveness: Some("pid 7".to_owned()),
        ..Owner::new(name("w1"), name("boot-1"))
    }
}
