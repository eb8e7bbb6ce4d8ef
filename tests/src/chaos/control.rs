//! What a node's process sees of its disk and its clock: `shim.c`, compiled at the start of a run
//! and preloaded into every node.
//!
//! A library of our own, not `libfaketime` and `libfiu`: a page of shared memory is read by the
//! next call after it was written, nothing has to be installed but a C compiler, which the build
//! needs as well, and clock and disk of one node are set without a word to the others.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("shim.c");

/// What can be set, in the order of the fields of `struct control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// Nanoseconds that the wall clock is ahead.
    WallOffset,
    /// So many syncs fail from now on.
    SyncErrors,
    /// Milliseconds that each sync takes longer.
    SyncDelay,
    /// Whether files find no room.
    Full,
}

const KNOBS: [Knob; 4] = [
    Knob::WallOffset,
    Knob::SyncErrors,
    Knob::SyncDelay,
    Knob::Full,
];

/// The page of one node.
pub struct Control {
    file: File,
    path: PathBuf,
}

impl Control {
    /// A page on which nothing is set.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        let control = Self {
            file,
            path: path.to_owned(),
        };
        control.clear()?;
        Ok(control)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Turns a knob.
    pub fn set(&self, knob: Knob, value: i64) -> Result<()> {
        let place = KNOBS.iter().position(|it| *it == knob).unwrap_or(0);
        let at = u64::try_from(place * size_of::<i64>())?;
        Ok(self.file.write_all_at(&value.to_ne_bytes(), at)?)
    }

    /// Sets everything back.
    pub fn clear(&self) -> Result<()> {
        KNOBS.iter().try_for_each(|knob| self.set(*knob, 0))
    }
}

/// Compiles the library into `dir` and answers where it is.
pub fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SOURCE)?;
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl");
    let output = compiler.output().context("cannot run cc")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "shim.c cannot be compiled: {words}"
    );
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process says of the seconds of its wall clock, and whether a sync failed.
    fn seen(library: &Path, control: &Control, file: &Path) -> Result<(i64, bool)> {
        let mut clock = Command::new("date");
        clock.arg("+%s");
        let mut sync = Command::new("sync");
        sync.arg("--data").arg(file);
        for command in [&mut clock, &mut sync] {
            command.env("LD_PRELOAD", library);
            command.env("CHAOS_CONTROL", control.path());
        }
        let seconds = String::from_utf8(clock.output()?.stdout)?;
        Ok((seconds.trim().parse()?, !sync.output()?.status.success()))
    }

    #[test]
    fn a_process_sees_the_clock_and_the_disk_that_were_set() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let library = compile(dir.path())?;
        let control = Control::create(&dir.path().join("control"))?;
        let (now, failed) = seen(&library, &control, &library)?;
        assert!(!failed);
        control.set(Knob::WallOffset, 86_400_000_000_000)?;
        control.set(Knob::SyncErrors, 1)?;
        let (later, failed) = seen(&library, &control, &library)?;
        assert!((86_390..87_000).contains(&(later - now)), "{later} {now}");
        assert!(failed);
        let (_, failed) = seen(&library, &control, &library)?;
        assert!(!failed, "one error is one");
        control.clear()?;
        let (back, _) = seen(&library, &control, &library)?;
        assert!(back - now < 600);
        Ok(())
    }
}
