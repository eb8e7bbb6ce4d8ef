//! What is stored for others: in the row, or as blobs beside it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{CONTENT_BLOBS_MAX, CONTENT_INLINE_BYTES_MAX};
use crate::refusal::InvalidArgument;

/// The name of a blob within its session: usually the SHA-256 of its bytes. Who puts a blob gives
/// the name; one name means the same bytes for as long as the blob is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobHash(pub [u8; 32]);

impl std::fmt::Display for BlobHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for BlobHash {
    type Err = InvalidArgument;

    fn from_str(text: &str) -> Result<Self, InvalidArgument> {
        let wrong = || InvalidArgument::new("blob", "is no name of a blob", "64 hex digits", text);
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// Bytes of any length up to [`CONTENT_BLOBS_MAX`] blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The bytes themselves, up to [`CONTENT_INLINE_BYTES_MAX`].
    Inline(Bytes),
    /// The bytes of these blobs, one after the other.
    Blobs {
        /// In order.
        hashes: Vec<BlobHash>,
        /// Of all of them.
        bytes: u64,
    },
}

impl Content {
    /// How many bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blobs { bytes, .. } => *bytes,
        }
    }

    /// How many bytes it has in its row.
    #[must_use]
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Blobs { hashes, .. } => hashes.len() * 32,
        }
    }

    /// The blobs that it needs.
    #[must_use]
    pub fn blobs(&self) -> &[BlobHash] {
        match self {
            Self::Inline(_) => &[],
            Self::Blobs { hashes, .. } => hashes,
        }
    }

    pub(super) fn validate(&self, field: &str) -> Result<(), InvalidArgument> {
        match self {
            Self::Inline(bytes) => {
                InvalidArgument::check_bytes(field, bytes.len(), CONTENT_INLINE_BYTES_MAX)
            }
            Self::Blobs { hashes, .. } => {
                let (count, max) = (hashes.len() as u64, CONTENT_BLOBS_MAX as u64);
                InvalidArgument::check_count(&format!("{field}.blobs"), count, 1, max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_shown_and_nothing_else_is() {
        let hash = BlobHash(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let digits = "0".repeat(63);
        for wrong in [
            "",
            "00",
            &digits,
            &format!("{digits}g"),
            &format!("{digits}00"),
        ] {
            assert!(wrong.parse::<BlobHash>().is_err(), "{wrong:?}");
        }
        let not_ascii = format!("{}é", "0".repeat(62));
        assert!(not_ascii.parse::<BlobHash>().is_err());
    }
}
