//! What leases and locks have in common as they are printed.

use quorate_statemachine::Name;
use serde::Serialize;

use crate::output::Row;
use crate::value::{Payload, payload};

/// The opaque note beside a lease or hold, as the last fields of its row; none if it is empty.
#[derive(Debug, Serialize)]
pub struct Note {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
}

impl Note {
    /// The note that these bytes are.
    pub fn new(bytes: &[u8]) -> Self {
        let (metadata, metadata_base64) = match bytes {
            [] => (None, None),
            bytes => payload(bytes),
        };
        Self {
            metadata,
            metadata_base64,
        }
    }
}

/// A lease or hold that was given back.
#[derive(Debug, Serialize)]
pub struct ReleasedRow {
    key: String,
    fencing_token: String,
    released: bool,
}

impl ReleasedRow {
    /// The grant of `key` with this token.
    pub fn new(key: &Name, fencing_token: u64) -> Self {
        Self {
            key: key.to_string(),
            fencing_token: fencing_token.to_string(),
            released: true,
        }
    }
}

impl Row for ReleasedRow {
    const HEADER: &'static [&'static str] = &["KEY", "TOKEN", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            self.fencing_token.clone(),
            "released".to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.key.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_json_text_base64_or_no_field() {
        for (bytes, shown) in [
            (b"".as_slice(), "{}"),
            (b"{ \"pid\": 7 }", r#"{"metadata":{"pid":7}}"#),
            (b"hello", r#"{"metadata":"hello"}"#),
            (&[0xff, 0x00], r#"{"metadata_base64":"/wA="}"#),
        ] {
            let note = serde_json::to_string(&Note::new(bytes)).expect("it is JSON");
            assert_eq!(note, shown);
        }
    }
}
