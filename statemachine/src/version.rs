//! Which commands a build knows, and which the cluster may use.
//!
//! Every operation belongs to a version: the first whose builds know it. The cluster has a version
//! too, in its state. It is raised once every member runs a build that knows the higher one, and
//! never goes down. A leader proposes a command only when the cluster's version covers it, so that
//! the log holds nothing that a member cannot read while two builds are at work.

use serde::{Deserialize, Serialize};

use crate::refusal::Broken;
use crate::tables::{Key, Table};
use crate::transaction::{Transaction, read};
use crate::view::View;

/// The version of the first builds, and of a cluster that was never raised.
pub const FIRST: u32 = 1;

/// The newest version that this build knows.
pub const NEWEST: u32 = 2;

/// The cluster's version; no row means [`FIRST`].
pub struct ClusterVersion;

/// What the row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Commands up to this version may be in the log.
    pub version: u32,
    /// An operator wants no higher one for now, so that the older build can still come back.
    pub held: bool,
}

impl Default for VersionRow {
    fn default() -> Self {
        Self {
            version: FIRST,
            held: false,
        }
    }
}

impl Table for ClusterVersion {
    const TAG: u8 = 0x06;
    const NAME: &'static str = "cluster_version";
    type Row = VersionRow;
}

/// Key of the one row.
#[must_use]
pub fn version_key() -> Key<ClusterVersion> {
    Key::first()
}

/// The version of the cluster that has this state. A higher one than [`NEWEST`] is an error: this
/// build may not know what the rows mean.
pub fn of(view: &dyn View) -> Result<VersionRow, Broken> {
    let row = read(view, &version_key())?.unwrap_or_default();
    check(row.version)?;
    Ok(row)
}

fn check(version: u32) -> Result<(), Broken> {
    if version <= NEWEST {
        return Ok(());
    }
    Err(Broken(format!(
        "the cluster is at version {version} and this build knows versions up to {NEWEST}: run the \
         build that the other members run"
    )))
}

/// Raises the version, unless it is held or as high already; the version afterwards.
pub(crate) fn raise(tx: &mut Transaction<'_>, to: u32) -> Result<u32, Broken> {
    check(to)?;
    let row = tx.get(&version_key())?.unwrap_or_default();
    if row.held || to <= row.version {
        return Ok(row.version);
    }
    tx.put(&version_key(), &VersionRow { version: to, ..row })?;
    Ok(to)
}

/// Keeps the version as it is, or lets it rise again.
pub(crate) fn hold(tx: &mut Transaction<'_>, held: bool) -> Result<(), Broken> {
    let row = tx.get(&version_key())?.unwrap_or_default();
    tx.put(&version_key(), &VersionRow { held, ..row })
}
