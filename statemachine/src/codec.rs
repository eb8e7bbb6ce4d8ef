//! Bytes of commands, queries, replies and rows. The one file that names the encoder.
//!
//! Everything is `[format version u8][stable tag u16, little endian][bincode]`. bincode is finished
//! and unmaintained (RUSTSEC-2025-0141), so it is pinned exactly, named nowhere else, and
//! `tests/frozen.rs` pins the bytes of every command and row: replacing it touches this file.
//!
//! Decoding is bounded ([`REPLY_BYTES_MAX`]) and never panics: what is wrong is a [`BadBytes`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::REPLY_BYTES_MAX;

/// The version that this build writes, and the only one it reads so far.
pub const FORMAT_VERSION: u8 = 1;

const HEADER_BYTES: usize = 3;

/// Bytes that are no value of the kind expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadBytes {
    /// Fewer bytes than the header has.
    #[error("{0} bytes are too few for a header of {HEADER_BYTES}")]
    Short(usize),
    /// Written by another format.
    #[error("format version {0} is unknown to this build, which reads {FORMAT_VERSION}")]
    Version(u8),
    /// A tag that this build has no meaning for.
    #[error("tag {0:#06x} is unknown to this build; upgrade the node or correct the caller")]
    Tag(u16),
    /// The body does not decode, or holds a value out of its bounds.
    #[error("{0}")]
    Body(String),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<REPLY_BYTES_MAX>()
}

/// Starts a value: version and tag.
#[must_use]
pub fn header(tag: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(FORMAT_VERSION);
    out.extend_from_slice(&tag.to_le_bytes());
    out
}

/// Splits a value into its tag and its body.
pub fn open(bytes: &[u8]) -> Result<(u16, &[u8]), BadBytes> {
    let [version, low, high, body @ ..] = bytes else {
        return Err(BadBytes::Short(bytes.len()));
    };
    if *version != FORMAT_VERSION {
        return Err(BadBytes::Version(*version));
    }
    Ok((u16::from_le_bytes([*low, *high]), body))
}

/// Appends one value.
pub fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    bincode::serde::encode_into_std_write(value, out, config())
        .expect("a Vec takes any number of bytes, and our types hold nothing serde cannot encode");
}

/// Takes one value from the front and advances `bytes` past it.
pub fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, BadBytes> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| BadBytes::Body(error.to_string()))?;
    *bytes = &bytes[used..];
    Ok(value)
}

/// Takes the last value: nothing may follow it.
pub fn take_last<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, BadBytes> {
    let value = take(&mut bytes)?;
    nothing_left(bytes)?;
    Ok(value)
}

/// Refuses bytes behind the last value.
pub fn nothing_left(bytes: &[u8]) -> Result<(), BadBytes> {
    if bytes.is_empty() {
        return Ok(());
    }
    Err(BadBytes::Body(format!("{} bytes too many", bytes.len())))
}

/// A whole value under one tag.
#[must_use]
pub fn encode<T: Serialize>(tag: u16, value: &T) -> Vec<u8> {
    let mut out = header(tag);
    put(&mut out, value);
    out
}

/// Reads a whole value that must have this tag.
pub fn decode<T: DeserializeOwned>(expected: u16, bytes: &[u8]) -> Result<T, BadBytes> {
    let (tag, body) = open(bytes)?;
    if tag != expected {
        return Err(BadBytes::Tag(tag));
    }
    take_last(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_bad_bytes_is_told_apart() {
        let good = encode(7, &(5u64, "x".to_owned()));
        assert_eq!(decode::<(u64, String)>(7, &good), Ok((5, "x".to_owned())));
        assert_eq!(
            decode::<(u64, String)>(7, &good[..2]),
            Err(BadBytes::Short(2))
        );
        assert_eq!(decode::<(u64, String)>(8, &good), Err(BadBytes::Tag(7)));
        let mut newer = good.clone();
        newer[0] = 9;
        assert_eq!(
            decode::<(u64, String)>(7, &newer),
            Err(BadBytes::Version(9))
        );
        let cut = &good[..good.len() - 1];
        assert!(matches!(
            decode::<(u64, String)>(7, cut),
            Err(BadBytes::Body(_))
        ));
        let mut long = good;
        long.push(0);
        assert!(matches!(
            decode::<(u64, String)>(7, &long),
            Err(BadBytes::Body(_))
        ));
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_allocates_nothing() {
        let mut bytes = header(7);
        bytes.push(253);
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(7, &bytes),
            Err(BadBytes::Body(_))
        ));
    }
}
