//! A digest of all rows, kept up to date row by row.
//!
//! The digest is the sum, modulo 2^128, of a 128-bit hash of each row's key and value (the AdHash
//! construction of Bellare and Micciancio, 1997, with a fast hash: it finds divergence and damage,
//! it is no defence against someone who chooses rows). Sums do not depend on order, so two nodes at
//! one log index have equal digests exactly when they have equal rows.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// The sum over all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl Digest {
    /// Accounts for one row going from `old` to `new`.
    pub fn replace(&mut self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
        if let Some(old) = old {
            self.0 = self.0.wrapping_sub(row_hash(key, old));
        }
        if let Some(new) = new {
            self.0 = self.0.wrapping_add(row_hash(key, new));
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes the key's length too, so that no two rows share a key-value concatenation.
fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Xxh3::with_seed(key.len() as u64);
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut one = Digest::default();
        one.replace(b"a", None, Some(b"1"));
        one.replace(b"b", None, Some(b"2"));
        let mut two = Digest::default();
        two.replace(b"b", None, Some(b"9"));
        two.replace(b"a", None, Some(b"1"));
        two.replace(b"b", Some(b"9"), Some(b"2"));
        assert_eq!(one, two);
        two.replace(b"a", Some(b"1"), None);
        two.replace(b"b", Some(b"2"), None);
        assert_eq!(two, Digest::default());
    }

    #[test]
    fn the_border_between_key_and_value_counts() {
        let (mut one, mut two) = (Digest::default(), Digest::default());
        one.replace(b"ab", None, Some(b"c"));
        two.replace(b"a", None, Some(b"bc"));
        assert_ne!(one, two);
    }
}
