//! What `LockHandle::lock_id` holds: the acquisition, and the fencing token of its grant.

use std::fmt;
use std::str::FromStr;

use bext_plugin_api::locking::LockHandle;
use quorate_client::{acquisition_text, parse_acquisition};
use thiserror::Error;

/// Names the form, so that a later one can be told from it.
const FORM: &str = "q1";

/// Longest part of a foreign lock id that an error shows. In characters.
const SHOWN_MAX: usize = 80;

/// The content of [`LockHandle::lock_id`]: `q1:<acquisition>:<fencing token>`.
///
/// The acquisition is a UUID in lower case with hyphens, the token a decimal number without sign
/// or leading zeros. There is one text for each value, and no other is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockId {
    /// The acquisition: the holder's proof.
    pub id: [u8; 16],
    /// Orders this grant among all grants that the cluster ever made, of any key: send it along
    /// with every write, and have the lower one refused.
    pub fencing_token: u64,
}

/// A text that is no [`LockId`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("lock_id is not of this plugin: expected q1:<uuid>:<fencing token>, actual {0:?}")]
pub struct BadLockId(
    /// The text, or its beginning.
    pub String,
);

impl LockId {
    /// The lock id of a handle.
    pub fn of(handle: &LockHandle) -> Result<Self, BadLockId> {
        handle.lock_id.parse()
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = acquisition_text(self.id);
        write!(f, "{FORM}:{id}:{}", self.fencing_token)
    }
}

impl FromStr for LockId {
    type Err = BadLockId;

    fn from_str(text: &str) -> Result<Self, BadLockId> {
        let bad = || BadLockId(text.chars().take(SHOWN_MAX).collect());
        let mut parts = text.splitn(3, ':');
        let (Some(FORM), Some(id), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let (Some(id), Ok(fencing_token)) = (parse_acquisition(id), token.parse()) else {
            return Err(bad());
        };
        let read = Self { id, fencing_token };
        // The parsers above take more than one text for a value.
        if read.to_string() != text {
            return Err(bad());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [
        0x01, 0x93, 0x5f, 0x2a, 0x00, 0x7b, 0x7c, 0xde, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
        0xef,
    ];
    const TEXT: &str = "q1:01935f2a-007b-7cde-8123-456789abcdef:4711";

    #[test]
    fn the_form_is_pinned() {
        let lock_id = LockId {
            id: ID,
            fencing_token: 4711,
        };
        assert_eq!(lock_id.to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(lock_id));
        let most = LockId {
            id: [0xff; 16],
            fencing_token: u64::MAX,
        };
        assert_eq!(most.to_string().parse(), Ok(most));
    }

    #[test]
    fn a_text_in_any_other_form_is_refused_and_shown() {
        let uuid = "01935f2a-007b-7cde-8123-456789abcdef";
        let upper = uuid.to_uppercase();
        let plain = uuid.replace('-', "");
        for text in [
            String::new(),
            "q1".to_owned(),
            format!("q1:{uuid}"),
            format!("q1:{uuid}:"),
            format!("q2:{uuid}:1"),
            format!("q1:{uuid}:+1"),
            format!("q1:{uuid}:01"),
            format!("q1:{uuid}:-1"),
            format!("q1:{uuid}:1:2"),
            format!("q1:{uuid}:18446744073709551616"),
            format!("q1:{upper}:1"),
            format!("q1:{plain}:1"),
            format!(" {TEXT}"),
            "ключ".repeat(1_000),
        ] {
            let error = text.parse::<LockId>().expect_err(&text);
            assert!(error.to_string().contains("q1:<uuid>"), "{error}");
            assert!(error.0.chars().count() <= SHOWN_MAX);
        }
    }
}
