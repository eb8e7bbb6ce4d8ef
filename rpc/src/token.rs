//! Bearer tokens: proof of being a user, for whoever knows the secret.
//!
//! As text a token is `quorate_<id>_<secret>`, id and secret in hex digits, so that a scanner for
//! leaked secrets can find one. A node is shown the text in the metadata `authorization: Bearer
//! <text>`, and the state of the cluster has the hash of the secret only. Nothing here prints a
//! secret but [`Bearer::expose`].

use std::fmt::{self, Write};

use quorate_statemachine::{InvalidArgument, Name};
use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Metadata key of the token.
pub const AUTHORIZATION: &str = "authorization";

const SCHEME: &str = "Bearer ";
const PREFIX: &str = "quorate_";

/// Bytes of an id: enough that two of ten million are not the same.
const ID_BYTES: usize = 8;

/// Bytes of a secret: nobody finds it by trying.
const SECRET_BYTES: usize = 32;

/// A token with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer {
    id: Name,
    secret: [u8; SECRET_BYTES],
}

/// The machine gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("this machine gives no random numbers, of which a token is made: {0}")]
pub struct NoRandomness(getrandom::Error);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({}, secret)", self.id)
    }
}

impl Bearer {
    /// A new one, of random numbers.
    pub fn mint() -> Result<Self, NoRandomness> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id).map_err(NoRandomness)?;
        getrandom::fill(&mut secret).map_err(NoRandomness)?;
        let id = Name::parse("token", hex(&id)).expect("hex digits are a name");
        Ok(Self { id, secret })
    }

    /// Reads the text of a token. What is wrong with it is said without showing it.
    pub fn parse(text: &str) -> Result<Self, InvalidArgument> {
        let wrong = || {
            InvalidArgument::new(
                "token",
                "is no token",
                format!("{PREFIX}, an id, _, and {} hex digits", SECRET_BYTES * 2),
                format!("{} bytes of something else", text.len()),
            )
        };
        let parts = text.strip_prefix(PREFIX);
        let (id, secret) = parts
            .and_then(|parts| parts.rsplit_once('_'))
            .ok_or_else(wrong)?;
        let id = Name::parse("token", id).map_err(|_| wrong())?;
        let secret = secret_of(secret).ok_or_else(wrong)?;
        Ok(Self { id, secret })
    }

    /// The token of a request; none if it shows none.
    pub fn of(metadata: &MetadataMap) -> Result<Option<Self>, InvalidArgument> {
        let Some(value) = metadata.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let text = value.to_str().ok().and_then(|text| {
            let (scheme, text) = text.split_at_checked(SCHEME.len())?;
            scheme.eq_ignore_ascii_case(SCHEME).then_some(text.trim())
        });
        let text = text.ok_or_else(|| {
            InvalidArgument::new(
                AUTHORIZATION,
                "has another scheme",
                "Bearer and a token",
                format!("{} bytes of something else", value.len()),
            )
        })?;
        Self::parse(text).map(Some)
    }

    /// The value of [`AUTHORIZATION`], which does not print itself.
    #[must_use]
    pub fn to_metadata(&self) -> MetadataValue<Ascii> {
        let text = format!("{SCHEME}{}", self.expose());
        let mut value = MetadataValue::try_from(text).expect("it has visible ASCII only");
        value.set_sensitive(true);
        value
    }

    /// Its id, which is no secret.
    #[must_use]
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// SHA-256 of the secret, which is all that the cluster keeps of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// The text, secret included: for whoever shall have it, and for nobody's log.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, hex(&self.secret))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn secret_of(digits: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    if digits.len() != 2 * SECRET_BYTES || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_each_is_another() {
        let one = Bearer::mint().expect("random numbers");
        assert_eq!(Bearer::parse(&one.expose()), Ok(one.clone()));
        let other = Bearer::mint().expect("random numbers");
        assert_ne!(one.id(), other.id());
        assert_ne!(one.hash(), other.hash());
    }

    #[test]
    fn a_token_travels_in_the_metadata_and_nothing_prints_its_secret() {
        let token = Bearer::mint().expect("random numbers");
        let mut metadata = MetadataMap::new();
        assert_eq!(Bearer::of(&metadata), Ok(None));
        metadata.insert(AUTHORIZATION, token.to_metadata());
        assert_eq!(Bearer::of(&metadata), Ok(Some(token.clone())));
        let secret = hex(&token.secret);
        for printed in [format!("{token:?}"), format!("{metadata:?}")] {
            assert!(!printed.contains(&secret), "{printed}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let good = Bearer::mint().expect("random numbers").expose();
        for bad in [
            "",
            "hunter2",
            "quorate_hunter2",
            &good[..good.len() - 1],
            &good.replace('_', "-"),
            &format!("{good}0"),
            &format!("{}é", &good[..good.len() - 2]),
        ] {
            let error = Bearer::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let mut metadata = MetadataMap::new();
        let basic = MetadataValue::from_static("Basic hunter2");
        metadata.insert(AUTHORIZATION, basic);
        let error = Bearer::of(&metadata).expect_err("another scheme");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
