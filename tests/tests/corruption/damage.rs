//! What can happen to a file.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use fastrand::Rng;

/// What a disk loses or garbles at once.
const PAGE: u64 = 4_096;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit is another one.
    Flip {
        /// In this byte.
        at: u64,
        /// Which of its bits.
        bit: u8,
    },
    /// A page holds zeroes.
    Zero {
        /// Where it begins.
        at: u64,
    },
    /// The file ends early.
    Cut {
        /// With so many bytes.
        to: u64,
    },
    /// The file is not there.
    Delete,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { at, bit } => write!(f, "bit {bit} of byte {at} flipped"),
            Self::Zero { at } => write!(f, "zeroes from byte {at} on"),
            Self::Cut { to } => write!(f, "cut to {to} bytes"),
            Self::Delete => write!(f, "deleted"),
        }
    }
}

impl Damage {
    /// Damage to a file of `size` bytes: bits of its first and last byte and `flips` others, a
    /// page, its tail, and all of it.
    pub fn of_file(size: u64, flips: usize, random: &mut Rng) -> Vec<Self> {
        let mut all = vec![Self::Delete];
        if size == 0 {
            return all;
        }
        let mut places = vec![0, size - 1];
        places.extend((0..flips).map(|_| random.u64(0..size)));
        let bits = places.into_iter().map(|at| Self::Flip {
            at,
            bit: random.u8(0..8),
        });
        all.extend(bits);
        let at = random.u64(0..size.div_ceil(PAGE)) * PAGE;
        all.push(Self::Zero { at });
        all.push(Self::Cut {
            to: random.u64(0..size),
        });
        all
    }

    /// Does it. Answers whether the file holds something else than before.
    pub fn inflict(self, path: &Path) -> Result<bool> {
        if self == Self::Delete {
            fs::remove_file(path)?;
            return Ok(true);
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let (at, mut bytes) = match self {
            Self::Cut { to } => {
                file.set_len(to)?;
                return Ok(true);
            }
            Self::Flip { at, .. } => (at, vec![0; 1]),
            Self::Zero { at } => (at, vec![0; usize::try_from(PAGE.min(size - at))?]),
            Self::Delete => return Ok(true),
        };
        file.read_exact_at(&mut bytes, at)?;
        let before = bytes.clone();
        match self {
            Self::Flip { bit, .. } => bytes[0] ^= 1 << bit,
            _ => bytes.fill(0),
        }
        file.write_all_at(&bytes, at)?;
        Ok(bytes != before)
    }
}

/// Flips a bit of the one place in the files `under` where `needle` stands. Answers the file.
pub fn flip_at(needle: &[u8], files: &[std::path::PathBuf]) -> Result<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in files {
        let bytes = fs::read(path)?;
        let at = bytes.windows(needle.len()).position(|here| here == needle);
        found.extend(at.map(|at| (path.clone(), at as u64)));
    }
    ensure!(found.len() == 1, "it stands in {found:?}");
    let (path, at) = found.remove(0);
    ensure!(Damage::Flip { at, bit: 3 }.inflict(&path)?);
    Ok(path)
}

#[test]
fn each_damage_changes_a_file_and_nothing_else_of_it() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = temp.path().join("file");
    let content: Vec<u8> = (0..10_000_u32).map(|at| (at % 250) as u8 + 1).collect();
    let all = Damage::of_file(10_000, 5, &mut Rng::with_seed(1));
    ensure!(all.len() == 10, "{all:?}");
    for damage in all {
        fs::write(&path, &content)?;
        ensure!(damage.inflict(&path)?, "{damage} changed nothing");
        let after = fs::read(&path).unwrap_or_default();
        let changed = content.iter().zip(&after).filter(|(a, b)| a != b).count();
        let wanted = match damage {
            Damage::Flip { .. } => changed == 1 && after.len() == content.len(),
            Damage::Zero { at } => changed as u64 == PAGE.min(10_000 - at),
            Damage::Cut { to } => changed == 0 && after.len() as u64 == to,
            Damage::Delete => !path.exists(),
        };
        ensure!(wanted, "{damage}: {changed} bytes are others");
    }
    Ok(())
}
