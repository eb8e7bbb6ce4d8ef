//! Members that are reached by name and come back under other IP addresses, as pods do.
//!
//! The nodes run in a mount namespace with a hosts file of the test's own. Where the system gives
//! nobody such a namespace, the test says so and ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use quorate_node::Config;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const UNSHARE: &str = "unshare --user --map-root-user --mount";

fn hosts(ips: [&str; 3]) -> String {
    let line = |(number, ip): (usize, &str)| format!("{ip} n{number}.quorate.test\n");
    (1..).zip(ips).map(line).collect()
}

/// A program that runs a node with `hosts` in place of the system's.
fn program(dir: &Path, hosts: &Path) -> Result<String> {
    let path = dir.join("node");
    let text = format!(
        "#!/bin/sh\nexec {UNSHARE} sh -c \
         'mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"' sh '{}' '{NODE}' \"$@\"\n",
        hosts.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path.to_string_lossy().into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_again_for_every_connection() -> Result<()> {
    let mut words = UNSHARE.split(' ');
    let unshare = words.next().unwrap_or_default();
    let mount = ["mount", "--bind", "/etc/hosts", "/etc/hosts"];
    let able = Command::new(unshare).args(words).args(mount).status();
    if !able.is_ok_and(|status| status.success()) {
        eprintln!("not shown here: `{UNSHARE}` is refused");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("hosts");
    fs::write(&file, hosts(["127.0.0.1"; 3]))?;
    let options = Options::new(&program(dir.path(), &file)?, 3).configure(|config| {
        let (_, port) = config.listen.peer.rsplit_once(':').unwrap_or_default();
        config.listen.advertise_peer = format!("{}.quorate.test:{port}", config.node.name);
    });
    scenario(options, async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        let mut ips = ["127.0.0.1"; 3];
        for (node, ip) in ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
            .into_iter()
            .enumerate()
        {
            load.more(300, RECOVERY_MAX).await?;
            ips[node] = ip;
            let changed = hosts(ips);
            let elsewhere = |config: &mut Config| {
                config.listen.peer = config.listen.peer.replace("127.0.0.1", ip);
            };
            // Written while the node is down, so that nobody finds it at its new place too early.
            cluster.nodes[node].terminate().await?;
            fs::write(&file, changed)?;
            cluster.nodes[node].configure(elsewhere)?;
            cluster.nodes[node].start()?;
            cluster.caught_up(node).await?;
        }
        load.more(300, RECOVERY_MAX).await?;
        let members = cluster.admin()?.members(false).await?.members;
        ensure!(
            members
                .iter()
                .all(|one| one.peer_addr.contains(".quorate.test:")),
            "{members:?}"
        );
        oracle::check_unfailing(cluster, load).await
    })
    .await
}
