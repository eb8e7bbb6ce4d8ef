//! Who this process is to the cluster.

use std::sync::OnceLock;

use quorate_statemachine::{InvalidArgument, Name, Owner};

/// The identity of this boot of the process: minted once, so that what a former self held is not
/// mistaken for its own.
pub fn incarnation() -> &'static str {
    static INCARNATION: OnceLock<String> = OnceLock::new();
    INCARNATION.get_or_init(|| uuid::Uuid::now_v7().to_string())
}

/// An owner with this process's incarnation. Without an id of its own it is known by the
/// incarnation.
pub(crate) fn owner(owner_id: Option<&str>) -> Result<Owner, InvalidArgument> {
    let owner_id = Name::parse("owner_id", owner_id.unwrap_or(incarnation()))?;
    Ok(Owner::new(
        owner_id,
        Name::parse("incarnation_id", incarnation())?,
    ))
}

/// An owner that is a flow of control of its own within this process.
pub(crate) fn flow(owner_id: Option<&str>) -> Result<Owner, InvalidArgument> {
    let owner_id = Name::parse("owner_id", owner_id.unwrap_or(incarnation()))?;
    let flow = uuid::Uuid::now_v7().to_string();
    Ok(Owner::new(owner_id, Name::parse("incarnation_id", flow)?))
}
