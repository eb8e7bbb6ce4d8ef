//! The state of a session beside its graph, and what a turn is answered.
//!
//! A snapshot of lash's is stored as blobs, and named by them: its reference is the list of their
//! hashes, so that a commit that carries a reference on needs nothing else to keep the snapshot.

use lash_core::store::{
    SESSION_CHECKPOINT_SCHEMA_VERSION, SessionCheckpoint, ensure_supported_schema_version,
};
use lash_core::{
    AgentFrameId, AgentFrameRecord, BlobRef, HydratedSessionCheckpoint, PersistedSessionConfig,
    StoreError,
};
use quorate_statemachine::session::{BlobHash, SessionRef};
use serde::{Deserialize, Serialize};

use super::QuorateSession;
use super::bodies::{Bodies, from_bytes, hash, to_bytes};
use super::error::{Result, backend};

/// What a head's state holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) config: PersistedSessionConfig,
    pub(super) agent_frames: Vec<AgentFrameRecord>,
    pub(super) current_agent_frame_id: AgentFrameId,
    pub(super) checkpoint: Checkpoint,
}

/// The checkpoint of a commit: also what the commit answers, and its repetition too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    #[serde(rename = "ref")]
    pub(super) reference: BlobRef,
    pub(super) manifest: SessionCheckpoint,
}

impl Checkpoint {
    /// Takes a commit's checkpoint apart: new snapshots become blobs, references are carried on.
    pub(super) fn pack(given: &HydratedSessionCheckpoint, bodies: &mut Bodies) -> Result<Self> {
        let mut stored =
            |what: &str, given: Option<Result<Vec<u8>>>, known: &Option<BlobRef>| match given {
                Some(bytes) => Ok(Some(reference(&bodies.blobs(what, bytes?)?))),
                None => Ok(known.clone()),
            };
        let tools = given.tool_state.as_ref();
        let tools = tools.map(|state| to_bytes("tool state", state));
        let plugins = given.plugin_snapshot.as_ref();
        let plugins = plugins.map(|snapshot| to_bytes("plugin snapshot", snapshot));
        let execution = given.execution_state.clone().map(Ok);
        let manifest = SessionCheckpoint::new(
            given.turn_state.clone(),
            stored("tool state", tools, &given.tool_state_ref)?,
            stored("plugin snapshot", plugins, &given.plugin_snapshot_ref)?,
            given.plugin_snapshot_revision,
            stored("execution state", execution, &given.execution_state_ref)?,
        );
        let bytes = to_bytes("checkpoint", &manifest)?;
        Ok(Self {
            reference: BlobRef(hash(&bytes).to_string()),
            manifest,
        })
    }

    /// All blobs that the snapshots are made of.
    pub(super) fn roots(&self) -> Result<Vec<BlobHash>> {
        let manifest = &self.manifest;
        let references = [
            &manifest.tool_state_ref,
            &manifest.plugin_snapshot_ref,
            &manifest.execution_state_ref,
        ];
        let mut roots = Vec::new();
        for reference in references.into_iter().flatten() {
            roots.extend(hashes(reference)?);
        }
        Ok(roots)
    }

    fn check_version(&self) -> Result<()> {
        ensure_supported_schema_version(
            "SessionCheckpoint",
            self.manifest.schema_version,
            SESSION_CHECKPOINT_SCHEMA_VERSION,
        )
    }
}

fn reference(hashes: &[BlobHash]) -> BlobRef {
    let hashes: Vec<String> = hashes.iter().map(BlobHash::to_string).collect();
    BlobRef(hashes.join("."))
}

fn hashes(reference: &BlobRef) -> Result<Vec<BlobHash>> {
    let hashes = reference.as_str().split('.').map(str::parse);
    hashes.collect::<std::result::Result<_, _>>().map_err(|_| {
        StoreError::Backend(format!(
            "snapshot reference `{reference}` was not given by this store"
        ))
    })
}

impl QuorateSession {
    /// The checkpoint with its snapshots; none if the session moved on meanwhile.
    pub(super) async fn hydrated(
        &self,
        session: &SessionRef,
        checkpoint: Checkpoint,
    ) -> Result<Option<HydratedSessionCheckpoint>> {
        checkpoint.check_version()?;
        let manifest = checkpoint.manifest;
        let tools = self.snapshot(session, &manifest.tool_state_ref);
        let plugins = self.snapshot(session, &manifest.plugin_snapshot_ref);
        let execution = self.snapshot(session, &manifest.execution_state_ref);
        let (tools, plugins, execution) = tokio::try_join!(tools, plugins, execution)?;
        let (Some(tools), Some(plugins), Some(execution)) = (tools, plugins, execution) else {
            return Ok(None);
        };
        let tool_state = tools.map(|bytes| from_bytes("tool state", &bytes));
        let plugin_snapshot = plugins.map(|bytes| from_bytes("plugin snapshot", &bytes));
        Ok(Some(HydratedSessionCheckpoint {
            turn_state: manifest.turn_state,
            tool_state_ref: manifest.tool_state_ref,
            tool_state: tool_state.transpose()?,
            plugin_snapshot_ref: manifest.plugin_snapshot_ref,
            plugin_snapshot: plugin_snapshot.transpose()?,
            plugin_snapshot_revision: manifest.plugin_snapshot_revision,
            execution_state_ref: manifest.execution_state_ref,
            execution_state: execution.map(|bytes| bytes.to_vec()),
        }))
    }

    /// The bytes of a snapshot, if there is one; none if its blobs went meanwhile.
    async fn snapshot(
        &self,
        session: &SessionRef,
        reference: &Option<BlobRef>,
    ) -> Result<Option<Option<bytes::Bytes>>> {
        let Some(reference) = reference else {
            return Ok(Some(None));
        };
        let hashes = hashes(reference)?;
        let bytes = self.client().session_bytes(session, &hashes).await;
        let bytes = bytes.map_err(|error| backend("reading a snapshot", &error))?;
        Ok(bytes.map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_the_list_of_its_blobs() {
        let blobs = [hash(b"one"), hash(b"two")];
        assert_eq!(hashes(&reference(&blobs)).expect("its own form"), blobs);
        for foreign in ["", ".", "abc", "sha256:00"] {
            assert!(hashes(&BlobRef(foreign.to_owned())).is_err(), "{foreign:?}");
        }
    }

    #[test]
    fn a_snapshot_that_is_given_takes_the_place_of_its_reference() {
        let old = reference(&[hash(b"old")]);
        let mut bodies = Bodies::new();
        let given = HydratedSessionCheckpoint {
            execution_state: Some(b"new".to_vec()),
            execution_state_ref: Some(old.clone()),
            tool_state_ref: Some(old.clone()),
            ..HydratedSessionCheckpoint::default()
        };
        let checkpoint = Checkpoint::pack(&given, &mut bodies).expect("it is small");
        let new = reference(&[hash(b"new")]);
        assert_eq!(checkpoint.manifest.execution_state_ref, Some(new));
        assert_eq!(checkpoint.manifest.tool_state_ref, Some(old));
        let roots = checkpoint.roots().expect("both are references");
        assert_eq!(roots, [hash(b"old"), hash(b"new")]);
    }
}
