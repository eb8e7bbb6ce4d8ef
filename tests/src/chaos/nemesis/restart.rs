//! Every node is stopped in order and started again, as for an upgrade.

use anyhow::Result;

use crate::chaos::field::Field;

pub(super) async fn rolling(field: &mut Field) -> Result<String> {
    for node in 0..field.size() {
        field.settled().await?;
        field.cluster.restart(node, |_| {}).await?;
    }
    Ok("all".to_owned())
}
