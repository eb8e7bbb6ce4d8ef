//! `quorate version`

use serde::Serialize;

use crate::exit::Failure;
use crate::output::Printer;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

/// Prints the version.
pub fn run(mut printer: Printer) -> Result<(), Failure> {
    let version = Version {
        name: "quorate",
        version: env!("CARGO_PKG_VERSION"),
    };
    let text = format!("{} {}", version.name, version.version);
    Ok(printer.value(&version, &text)?)
}
