//! A place in a distributed trace, as W3C Trace Context names it.

use std::fmt;

use bytes::Bytes;

/// The flag of a trace that is recorded.
const RECORDED: u128 = 1;

/// A span of a caller, in its trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The whole trace.
    pub trace_id: [u8; 16],
    /// The caller's span in it.
    pub span_id: [u8; 8],
}

impl Trace {
    /// Trace id and span id; none if there are not just those, or one of them is all zero, as W3C
    /// Trace Context wants it to be ignored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, span_id) = bytes.split_first_chunk::<16>()?;
        let trace = Self {
            trace_id: *trace_id,
            span_id: span_id.try_into().ok()?,
        };
        (trace.trace_id != [0; 16] && trace.span_id != [0; 8]).then_some(trace)
    }

    /// What [`Self::from_bytes`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        [&self.trace_id[..], &self.span_id[..]].concat().into()
    }

    /// From the value of a `traceparent` header: `00-<trace id>-<span id>-<flags>`. None if it is
    /// no such thing, or says that its trace is not recorded.
    #[must_use]
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let mut number = |digits: usize| {
            let hex = parts.next().filter(|hex| hex.len() == digits)?;
            let all = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            all.then(|| u128::from_str_radix(hex, 16).ok())?
        };
        let (_version, trace_id) = (number(2)?, number(32)?);
        let (span_id, flags) = (u64::try_from(number(16)?).ok()?, number(2)?);
        let bytes = [&trace_id.to_be_bytes()[..], &span_id.to_be_bytes()[..]];
        Self::from_bytes(&bytes.concat()).filter(|_| flags & RECORDED != 0)
    }
}

impl fmt::Display for Trace {
    /// The trace id in hex, as tracing systems show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.trace_id))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}-{:016x}", u64::from_be_bytes(self.span_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_ignored() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::from_traceparent(header).expect("the example of W3C");
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            assert_eq!(Trace::from_traceparent(bad), None, "{bad:?}");
        }
    }
}
