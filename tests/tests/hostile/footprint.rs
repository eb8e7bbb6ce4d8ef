//! What a process takes of the machine, as the kernel counts it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use quorate_tests::process::NodeProcess;

/// The files of the kernel about a process.
fn about(node: &NodeProcess) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}", node.pid()?)))
}

/// A figure of `/proc/PID/status`, in bytes.
fn figure(node: &NodeProcess, name: &str) -> Result<u64> {
    let status = fs::read_to_string(about(node)?.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.with_context(|| format!("no {name} in {status}"))?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Bytes in memory now.
pub fn resident(node: &NodeProcess) -> Result<u64> {
    figure(node, "VmRSS:")
}

/// Most bytes that were in memory since [`forget_peak`].
pub fn peak(node: &NodeProcess) -> Result<u64> {
    figure(node, "VmHWM:")
}

/// The peak counts from what is in memory now.
pub fn forget_peak(node: &NodeProcess) -> Result<()> {
    Ok(fs::write(about(node)?.join("clear_refs"), "5")?)
}

/// Sockets that are open, those that listen among them.
pub fn sockets(node: &NodeProcess) -> Result<usize> {
    let mut count = 0;
    for file in fs::read_dir(about(node)?.join("fd"))? {
        // One that is closed meanwhile is none.
        let target = fs::read_link(file?.path()).unwrap_or_default();
        count += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(count)
}

#[test]
fn the_kernel_counts_this_process_too() -> Result<()> {
    let own = PathBuf::from(format!("/proc/{}/status", std::process::id()));
    let status = fs::read_to_string(own)?;
    assert!(status.contains("VmRSS:") && status.contains("VmHWM:"));
    Ok(())
}
