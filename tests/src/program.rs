//! The program `quorate` itself, as a person would run it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::process::free_port;

/// The program, built as it is now. Cargo builds no other package's programs for a test. `node` is
/// `env!("CARGO_BIN_EXE_test-node")`, beside which it lies.
pub fn quorate(node: &str) -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = Path::new(node).parent().expect("a program has a directory");
        let target = dir.parent().expect("it is that of a profile");
        let mut build = Command::new(env!("CARGO"));
        // With a test beside it, so that its dependencies have the features of the tests' own
        // build: of the program alone they would all be compiled once more.
        build
            .args(["build", "--quiet", "--locked", "--workspace"])
            .args(["--bin", "quorate", "--test", "tidy"])
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo says of this package is not the other's: some build scripts would run again,
        // and after them the next build by hand.
        for (name, _) in std::env::vars_os() {
            let of_package = name.to_string_lossy();
            if of_package.starts_with("CARGO_PKG_") || of_package.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        if dir.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().expect("cargo has built this test too");
        assert!(built.success(), "quorate was not built");
        dir.join("quorate")
    })
}

/// Arguments that serve a cluster of one node on free ports.
#[must_use]
pub fn alone(data_dir: &Path) -> Vec<String> {
    let mut args: Vec<String> = ["serve", "--bootstrap", "--name", "n", "--data-dir"]
        .map(str::to_owned)
        .into();
    args.push(data_dir.display().to_string());
    for listen in ["--listen-client", "--listen-peer", "--listen-http"] {
        args.extend([listen.to_owned(), format!("127.0.0.1:{}", free_port())]);
    }
    args
}

/// A process that is ended with the test.
pub struct Served(pub Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with these arguments against these endpoints; waits until it has ended.
pub async fn run(program: &Path, endpoints: &str, args: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .env("QUORATE_ENDPOINTS", endpoints)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await;
    output.with_context(|| format!("cannot run {} {args:?}", program.display()))
}

/// The arguments that claim `key` for a time that no test takes, by whoever will lead.
#[must_use]
pub fn claim(key: &str) -> [&str; 9] {
    let wait = "--timeout";
    [
        "lease", "claim", key, "--owner", "o", "--ttl", "1h", wait, "30s",
    ]
}

/// What it printed, if it ended well.
pub fn printed(output: &Output) -> Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout.clone())?)
}
