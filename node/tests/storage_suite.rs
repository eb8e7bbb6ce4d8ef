//! openraft's own suite for stores, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_node::raft::TypeConfig;
use quorate_node::storage::{DataDir, Identity, LogStore, StateStore, Storage, StorageOptions};
use std::sync::Arc;
use tempfile::TempDir;

/// Each case gets a directory of its own, which goes with it.
struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateStore, (TempDir, DataDir)> for Fresh {
    async fn build(
        &self,
    ) -> Result<((TempDir, DataDir), LogStore, StateStore), StorageError<TypeConfig>> {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let mut dir = DataDir::open(temp.path().join("data")).expect("a fresh directory");
        dir.set_identity(Identity {
            cluster_id: "suite".to_owned(),
            node_id: 1,
            name: "n1".to_owned(),
        })
        .expect("written once");
        let hook = Arc::new(|_| ());
        let stores = Storage::open(&dir, &StorageOptions::default(), hook).expect("empty stores");
        Ok(((temp, dir), stores.log, stores.state))
    }
}

#[tokio::test]
async fn our_stores_pass_the_suite_of_openraft() {
    Suite::test_all(Fresh).await.expect("every case passes");
}
